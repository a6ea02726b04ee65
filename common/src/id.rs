//! Identifiers of quota scopes and virtual folders: their text forms and their places on disk.
//!
//! Managers have written these ids in several ways over the years (with and without hyphens, with and
//! without a quota scope). Parsing accepts every form that a manager sends, printing gives one canonical
//! form, and the path pieces are made of hexadecimal digits only, so that no id can ever name anything else.

use std::fmt;
use std::str::FromStr;

use crate::uuid::NotUuid;
pub use crate::uuid::Uuid;

/// Why a text is not an identifier. The `Display` text is meant for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// Not 32 hexadecimal digits, with or without hyphens.
    Uuid,
    /// The part before the colon is neither `user` nor `project`, or there is no colon.
    Scope,
    /// The left or the right side of the slash is wrong.
    Vfolder,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, form) = match self {
            IdError::Uuid => ("UUID", "32 hexadecimal digits, with or without hyphens"),
            IdError::Scope => ("QuotaScopeID", "user:UUID or project:UUID"),
            IdError::Vfolder => ("VFolderID", "UUID, user:UUID/UUID or project:UUID/UUID"),
        };
        write!(f, "cannot convert value to {name}: write {form}")
    }
}

impl std::error::Error for IdError {}

impl From<NotUuid> for IdError {
    fn from(_: NotUuid) -> Self {
        IdError::Uuid
    }
}

/// Who owns a quota scope. It is not part of the scope's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// One user's folders.
    User,
    /// One project's folders.
    Project,
}

impl ScopeKind {
    fn text(self) -> &'static str {
        match self {
            ScopeKind::User => "user",
            ScopeKind::Project => "project",
        }
    }
}

/// A quota scope: one owner's folders, which share one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaScopeId {
    kind: ScopeKind,
    uuid: Uuid,
}

impl QuotaScopeId {
    /// The scope of `kind` with this id.
    pub fn new(kind: ScopeKind, uuid: Uuid) -> Self {
        QuotaScopeId { kind, uuid }
    }

    /// The name of the scope's directory: 32 hexadecimal digits, without the kind.
    pub fn dir_name(&self) -> String {
        self.uuid.hex()
    }

    /// The id without its kind, as the file system and the quota helper know the scope.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl fmt::Display for QuotaScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.text(), self.uuid.hyphenated())
    }
}

impl FromStr for QuotaScopeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (kind, uuid) = text.split_once(':').ok_or(IdError::Scope)?;
        let kind = match kind.to_ascii_lowercase().as_str() {
            "user" => ScopeKind::User,
            "project" => ScopeKind::Project,
            _ => return Err(IdError::Scope),
        };
        Ok(QuotaScopeId { kind, uuid: uuid.parse().map_err(|_| IdError::Scope)? })
    }
}

/// A virtual folder, alone ("bare", as managers up to 23.03.4 send it) or in a quota scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VfolderId {
    scope: Option<QuotaScopeId>,
    folder: Uuid,
}

impl VfolderId {
    /// The folder with this id in this scope.
    pub fn new(scope: Option<QuotaScopeId>, folder: Uuid) -> Self {
        VfolderId { scope, folder }
    }

    /// The scope, or nothing for a bare id.
    pub fn scope(&self) -> Option<&QuotaScopeId> {
        self.scope.as_ref()
    }

    /// The folder's own id.
    pub fn folder(&self) -> Uuid {
        self.folder
    }

    /// Whether the id names no scope, so that legacy paths and replies apply.
    pub fn is_bare(&self) -> bool {
        self.scope.is_none()
    }

    /// The three directory names below the volume's or the scope's directory: 2, 2 and 28 digits.
    pub fn dir_names(&self) -> [String; 3] {
        self.folder.dir_names()
    }
}

impl fmt::Display for VfolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{scope}/{}", self.folder.hex()),
            None => f.write_str(&self.folder.hex()),
        }
    }
}

impl FromStr for VfolderId {
    type Err = IdError;

    /// Splits at the first `/`. What stands alone, or before an empty right side, is a bare folder id.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bare = |text: &str| text.parse().map(|folder| VfolderId { scope: None, folder });
        match text.split_once('/') {
            None => bare(text).map_err(|_| IdError::Vfolder),
            Some((folder, "")) => bare(folder).map_err(|_| IdError::Vfolder),
            Some((scope, folder)) => Ok(VfolderId {
                scope: Some(scope.parse().map_err(|_| IdError::Vfolder)?),
                folder: folder.parse().map_err(|_| IdError::Vfolder)?,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0b6c1d7ea6f24d57a1b2c3d4e5f60718";
    const HYPHENATED: &str = "0b6c1d7e-a6f2-4d57-a1b2-c3d4e5f60718";
    const SCOPE: &str = "user:5f1d9a3e-0c55-4f0e-9c1e-2b8f5b1c7d10";

    #[test]
    fn every_form_of_a_uuid_that_python_takes_is_taken() {
        for text in
            [HEX, HYPHENATED, &HEX.to_uppercase(), &format!("urn:uuid:{HYPHENATED}"), &format!("{{{HEX}}}")]
        {
            let uuid: Uuid = text.parse().unwrap();
            assert_eq!((uuid.hex().as_str(), uuid.hyphenated().as_str()), (HEX, HYPHENATED), "{text}");
        }
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "0",
            &HEX[1..],
            &format!("{HEX}0"),
            "../../../../../../../../../../../..",
            &HEX.replace('0', "ü"),
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(NotUuid), "{text}");
        }
    }

    #[test]
    fn a_scope_prints_canonically_and_its_directory_has_no_kind() {
        let scope: QuotaScopeId = "USER:5F1D9A3E0C554F0E9C1E2B8F5B1C7D10".parse().unwrap();
        assert_eq!(scope.to_string(), SCOPE);
        assert_eq!(scope.dir_name(), "5f1d9a3e0c554f0e9c1e2b8f5b1c7d10");
        for text in ["", "user", "user:", "group:5f1d9a3e0c554f0e9c1e2b8f5b1c7d10", "user:xyz", HEX] {
            assert_eq!(text.parse::<QuotaScopeId>(), Err(IdError::Scope), "{text}");
        }
    }

    #[test]
    fn a_folder_is_bare_or_scoped_and_knows_its_directories() {
        for (text, canonical) in [
            (HYPHENATED.to_owned(), HEX.to_owned()),
            (format!("{HEX}/"), HEX.to_owned()),
            (format!("{SCOPE}/{HYPHENATED}"), format!("{SCOPE}/{HEX}")),
        ] {
            let id: VfolderId = text.parse().unwrap();
            assert_eq!(id.to_string(), canonical);
            assert_eq!(id.dir_names(), ["0b", "6c", "1d7ea6f24d57a1b2c3d4e5f60718"]);
            assert_eq!(id.is_bare(), !canonical.contains('/'));
        }
        for text in
            ["", "/", "x/y", &format!("{SCOPE}/"), &format!("{SCOPE}/x"), &format!("{HEX}/{HEX}"), "a/b/c"]
        {
            assert_eq!(text.parse::<VfolderId>(), Err(IdError::Vfolder), "{text}");
        }
    }
}
