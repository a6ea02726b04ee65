//! The volume backends that a configuration may name, and the options that each of them has.
//!
//! One table holds all of it. Option names and types are the reference proxy's; the few of ours stand last in each
//! list.

use crate::tree::{Kind, Node};
use crate::value::{Choice, Value, Wrong};

/// What kind of storage a volume lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A mounted directory without further abilities.
    Vfs,
    /// XFS with project quotas.
    Xfs,
    /// CephFS.
    CephFs,
    /// NetApp ONTAP.
    NetApp,
    /// Pure Storage FlashBlade.
    PureStorage,
    /// Weka.
    Weka,
    /// IBM Storage Scale, also called `gpfs`.
    SpectrumScale,
    /// VAST Data.
    Vast,
    /// Dell PowerScale (OneFS).
    OneFs,
    /// DDN EXAScaler (Lustre).
    ExaScaler,
    /// Hammerspace with shares as quota scopes.
    Hammerspace,
    /// Hammerspace as a plain mounted directory.
    HammerspaceBase,
}

impl Choice for Backend {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("vfs", Self::Vfs),
        ("xfs", Self::Xfs),
        ("cephfs", Self::CephFs),
        ("netapp", Self::NetApp),
        ("purestorage", Self::PureStorage),
        ("weka", Self::Weka),
        ("spectrumscale", Self::SpectrumScale),
        ("gpfs", Self::SpectrumScale),
        ("vast", Self::Vast),
        ("dellemc-onefs", Self::OneFs),
        ("exascaler", Self::ExaScaler),
        ("hammerspace", Self::Hammerspace),
        ("hammerspace-base", Self::HammerspaceBase),
    ];
}

/// The type of an option.
#[derive(Clone, Copy)]
pub(crate) enum OptionType {
    Text,
    /// An `http` or `https` URL. Never shown, because some write the password into it.
    Url,
    /// Several URLs with commas between them.
    Urls,
    /// Never shown; also read from `<key>_file` and from a credential.
    Secret,
    Boolean,
    Integer,
    Duration,
    /// On this host; a relative one starts at the directory of the configuration file.
    Path,
    List,
    OneOf(&'static [&'static str]),
    /// SHA-256 of a certificate, kept as 64 lower-case hexadecimal digits.
    Fingerprint,
    Table(&'static [OptionSpec]),
}

/// Name and type of an option.
pub(crate) type OptionSpec = (&'static str, OptionType);

use OptionType::{
    Boolean, Duration, Fingerprint, Integer, List, OneOf, Path, Secret, Table, Text, Url, Urls,
};

impl Backend {
    /// The options of this backend.
    pub(crate) fn options(self) -> &'static [OptionSpec] {
        match self {
            Self::Vfs | Self::CephFs | Self::ExaScaler | Self::HammerspaceBase => &[],
            Self::Xfs => &[("lock_file_path", Path)],
            Self::NetApp => NETAPP,
            Self::PureStorage => PURE_STORAGE,
            Self::Weka => WEKA,
            Self::SpectrumScale => SPECTRUM_SCALE,
            Self::Vast => VAST,
            Self::OneFs => ONE_FS,
            Self::Hammerspace => HAMMERSPACE,
        }
    }
}

/// Both generations: qtree per quota scope (`netapp_ontap_…`), and one qtree as the volume (`netapp_endpoint`, …).
const NETAPP: &[OptionSpec] = &[
    ("netapp_ontap_endpoint", Url),
    ("netapp_ontap_user", Text),
    ("netapp_ontap_password", Secret),
    ("netapp_volume_name", Text),
    ("netapp_nfs_host", Text),
    ("netapp_xcp_cmd", List),
    ("netapp_svm", Text),
    ("netapp_endpoint", Url),
    ("netapp_admin", Text),
    ("netapp_password", Secret),
    ("netapp_qtree_name", Text),
    ("netapp_xcp_hostname", Text),
    ("netapp_xcp_catalog_path", Path),
    ("netapp_xcp_container_name", Text),
    ("netapp_svm_name", Text),
    ("netapp_verify_ssl", Boolean),
    ("netapp_ca_file", Path),
    ("netapp_cert_fingerprint", Fingerprint),
    ("netapp_request_timeout", Duration),
    ("netapp_job_timeout", Duration),
];

const PURE_STORAGE: &[OptionSpec] = &[
    ("purity_endpoint", Url),
    ("purity_ssl_verify", Boolean),
    ("purity_api_token", Secret),
    ("purity_api_version", Text),
    ("purity_fs_name", Text),
    ("purity_ca_file", Path),
    ("purity_cert_fingerprint", Fingerprint),
    ("purity_request_timeout", Duration),
    ("purity_toolkit_path", Path),
];

const WEKA: &[OptionSpec] = &[
    ("weka_endpoint", Urls),
    ("weka_username", Text),
    ("weka_password", Secret),
    ("weka_organization", Text),
    ("weka_fs_name", Text),
    ("weka_verify_ssl", Boolean),
    ("weka_ca_file", Path),
    ("weka_cert_fingerprint", Fingerprint),
    ("weka_request_timeout", Duration),
    ("weka_quota_api", OneOf(&["v1", "v2"])),
];

const SPECTRUM_SCALE: &[OptionSpec] = &[
    ("gpfs_endpoint", Urls),
    ("gpfs_username", Text),
    ("gpfs_password", Secret),
    ("gpfs_fs_name", Text),
    ("gpfs_verify_ssl", Boolean),
    ("gpfs_owner", Text),
    ("gpfs_fileset_prefix", Text),
];

const VAST: &[OptionSpec] = &[
    ("vast_endpoint", Url),
    ("vast_username", Text),
    ("vast_password", Secret),
    ("vast_verify_ssl", Boolean),
    ("vast_force_login", Boolean),
    ("vast_api_version", OneOf(&["v1", "v2", "latest"])),
    ("vast_cluster_id", Integer),
    ("vast_storage_base_dir", Text),
    ("vast_cluster_info_cache_ttl", Duration),
];

const ONE_FS: &[OptionSpec] = &[
    ("dell_endpoint", Url),
    ("dell_username", Text),
    ("dell_admin", Text),
    ("dell_password", Secret),
    ("dell_api_version", Text),
    ("dell_ifs_path", Text),
    ("dell_system_name", Text),
    ("dell_verify_ssl", Boolean),
];

const HAMMERSPACE: &[OptionSpec] = &[
    ("address", Text),
    ("username", Text),
    ("password", Secret),
    ("mount_source", Text),
    ("share_query_retry", Integer),
    ("share_query_wait_sec", Duration),
    ("ssl_enabled", Boolean),
    ("ssl_config", Table(&[("cert_file", Path), ("key_file", Path)])),
];

/// SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` prints it, or without the colons.
pub(crate) struct FingerprintText(pub(crate) String);

impl Value for FingerprintText {
    fn read(node: &Node) -> Result<Self, Wrong> {
        let digits = match &node.kind {
            Kind::Text(text) => text.trim().replace(':', "").to_ascii_lowercase(),
            _ => String::new(),
        };
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self(digits));
        }
        Err(Wrong::new(
            node,
            "is not the SHA-256 fingerprint of a certificate; write its 64 hexadecimal digits, as `openssl x509 \
             -noout -fingerprint -sha256` prints them",
        ))
    }
}

/// One or several URLs as written.
pub(crate) struct UrlText<const SEVERAL: bool>(pub(crate) String);

impl<const SEVERAL: bool> Value for UrlText<SEVERAL> {
    const SHOWN: bool = false;

    fn read(node: &Node) -> Result<Self, Wrong> {
        let is_url = |text: &str| {
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            rest.is_some_and(|rest| {
                !rest.is_empty()
                    && !rest.starts_with(['/', ':'])
                    && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
            })
        };
        match &node.kind {
            Kind::Text(text) if SEVERAL && text.split(',').all(|url| is_url(url.trim())) => {
                Ok(Self(text.clone()))
            }
            Kind::Text(text) if is_url(text.trim()) && !text.contains(',') => {
                Ok(Self(text.trim().to_owned()))
            }
            _ => Err(Wrong::new(
                node,
                "is not the address of an array; write a URL such as \"https://10.0.0.5\"",
            )),
        }
    }
}
