# Shared by tests/run, the suites and .ci/run: installing what is missing, building the agent, counting cases.
# Sourced from the repository's root.

cache=$PWD/tests/.cache
profile=${TESTS_PROFILE:-release}
export PYTHONPATH=$PWD/tests CARGO_TERM_COLOR=never PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 NO_COLOR=1

die() { printf 'tests: %s\n' "$*" >&2; exit 1; }
headline() { printf '\n== %s\n' "$*"; }

# packages COMMAND=PACKAGE...: installs the Debian packages whose command is missing.
packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    local sudo=()
    if ((EUID)); then
        sudo -n true 2>/dev/null ||
            die "needs root to install Debian packages; please run: sudo apt-get install ${missing[*]}"
        sudo=(sudo -n)
    fi
    command -v apt-get >/dev/null || die "please install with your package manager: ${missing[*]}"
    headline "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        >/dev/null || die "apt-get could not install: ${missing[*]}"
}

# cargo_tool NAME VERSION: prints the path of a cargo command. That release is built once, unoptimised: it takes a third of
# the time, and nothing that these do takes long.
cargo_tool() {
    local name=$1 version=$2
    local folder=$cache/$name-$version
    if [[ ! -x $folder/bin/$name ]]; then
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
            CARGO_TARGET_DIR=$cache/tools-build \
            cargo install -q "$name" --version "=$version" --locked --no-track --root "$folder" >&2 ||
            die "cargo could not install $name $version"
    fi
    echo "$folder/bin/$name"
}

# python_of VERSION: prints an interpreter of that version, such as 3.13, or nothing where there is none. Those that pyenv has
# are found whether switched on or not.
python_of() {
    local python
    for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3; do
        "$python" -c 'import ensurepip' 2>/dev/null || continue
        echo "$python"
        break
    done
}

# python_env REQUIREMENTS [PYTHON]: prints the folder of a virtual environment with those packages. It is made anew when the
# requirements or the interpreter change; the marker is written last, so that a broken install is not taken for a whole one.
python_env() {
    local requirements=$1 python=${2:-python3} key folder
    key=$({ "$python" --version; cat "$requirements"; } | sha256sum | cut -c1-16)
    folder=$cache/python-$(basename "$requirements" .txt)-$key
    if [[ ! -e $folder/.complete ]]; then
        rm -rf "$folder"
        "$python" -m venv "$folder" >&2 || die "$python cannot make a virtual environment; please install python3-venv"
        "$folder/bin/pip" install -q -r "$requirements" >&2 || die "pip could not install $requirements"
        touch "$folder/.complete"
    fi
    echo "$folder"
}

# node_env FOLDER: gives FOLDER the packages of its package-lock.json.
node_env() {
    local folder=$1 key modules
    key=$({ node --version; cat "$folder/package-lock.json"; } | sha256sum | cut -c1-16)
    modules=$cache/node-$key
    if [[ ! -e $modules/.complete ]]; then
        rm -rf "$modules"
        mkdir -p "$modules"
        cp "$folder/package.json" "$folder/package-lock.json" "$modules/"
        (cd "$modules" && npm ci --silent --no-audit --no-fund) || die "npm could not install $folder/package.json"
        touch "$modules/.complete"
    fi
    ln -sfn "$modules/node_modules" "$folder/node_modules"
}

# binary PACKAGE PROGRAM: builds a program and prints its path. Cargo decides whether there is anything to do.
binary() {
    local flags=()
    [[ $profile == debug ]] || flags=(--release)
    cargo build --locked -q -p "$1" --bin "$2" "${flags[@]}" >&2 || die "$2 does not build"
    echo "${CARGO_TARGET_DIR:-$PWD/target}/$profile/$2"
}

agent_binary() { binary storage-agent storage-agent; }

# rust_tests ARGUMENT...: runs cargo's tests, by nextest where it is installed.
rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --no-fail-fast "$@"
    else
        cargo test --locked --no-fail-fast "$@"
    fi
}

# rust_tests_shown ARGUMENT...: the same, with what each test prints.
rust_tests_shown() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --no-fail-fast --success-output immediate "$@"
    else
        cargo test --locked --no-fail-fast "$@" -- --nocapture
    fi
}

# python_tests ENVIRONMENT ARGUMENT...: runs pytest with one line for each case.
python_tests() {
    local environment=$1
    shift
    "$environment/bin/python" -m pytest -v --no-header --tb=short --color=no -p no:cacheprovider "$@"
}

# count_cases LOG: prints "PASSED FAILED SKIPPED", read from the closing lines of nextest, cargo test, pytest and node.
count_cases() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        function add(word, total, name) { total = 0; if (match($0, "[0-9]+ " word)) total = substr($0, RSTART) + 0; return total }
        /^ +Summary \[.*tests? run:/ || /^test result:/ || /^=+ .* in [0-9.]+s( \([0-9:]+\))? =+$/ {
            passed += add("passed"); failed += add("failed") + add("exec failed") + add("timed out") + add("error")
            # Of nextest, those that a filter left out are no cases of the suite.
            skipped += /^=/ ? add("skipped") : add("ignored")
        }
        /^(ℹ|#) pass [0-9]+$/ { passed += $3 }
        /^(ℹ|#) (fail|cancelled) [0-9]+$/ { failed += $3 }
        /^(ℹ|#) (skipped|todo) [0-9]+$/ { skipped += $3 }
        END { print passed + 0, failed + 0, skipped + 0 }'
}
