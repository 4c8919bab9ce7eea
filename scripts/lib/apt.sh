# SPDX-License-Identifier: Apache-2.0
# Packages by apt, and Debian source packages of a newer release. Sourced, not run.

. /etc/os-release

# apt_install PACKAGE...: installs those that are missing.
apt_install() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return 0
  note "installing: ${missing[*]}"
  apt_update
  must "apt-get install" as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

# apt_update: once in a script's life.
apt_update() {
  [[ -n "${crease_apt_updated:-}" ]] && return 0
  crease_apt_updated=yes
  must "apt-get update" as_root apt-get update
}

# apt_candidate PACKAGE: the upstream part of the version that apt would install, nothing where it has none.
apt_candidate() {
  apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}' | sed -E 's/^[0-9]+://; s/[-+~].*//'
}

# The newer release of this distribution whose source packages are new enough.
apt_source_suite() {
  case "$ID" in
    debian) echo trixie ;;
    ubuntu) echo resolute ;;
    *) return 1 ;;
  esac
}

# apt_source PACKAGE DIRECTORY: unpacks the package's source of apt_source_suite into DIRECTORY. Apt keeps its state
# for this in a temporary directory, and reads the archive's address from where the machine's own packages come from.
apt_source() (
  package="$1" directory="$2"
  suite="$(apt_source_suite)" || { echo "no release of $ID is known to have it new enough"; exit 1; }
  archive="$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
    awk -F'|' -v release="$VERSION_CODENAME" '$2 == release && $3 == "main" {print $1; exit}')"
  [[ -n "$archive" ]] || { echo "apt knows no archive for $VERSION_CODENAME/main; run apt-get update"; exit 1; }
  for keyring in /usr/share/keyrings/"$ID"-archive-keyring.{gpg,pgp} ""; do [[ -e "$keyring" ]] && break; done

  state="$(mktemp -d)"
  trap 'rm -rf "$state"' EXIT
  mkdir -p "$state"/lists/partial "$state"/cache/archives/partial "$state"/parts "$state"/unpacked
  components=main
  [[ "$ID" == ubuntu ]] && components="main universe"
  echo "deb-src ${keyring:+[signed-by=$keyring] }$archive $suite $components" >"$state/sources.list"
  cat >"$state/apt.conf" <<CONF
Dir::State "$state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$state/cache";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "$state/parts";
APT::Sandbox::User "$(id -un)";
CONF
  export APT_CONFIG="$state/apt.conf"
  apt-get update
  cd "$state/unpacked"
  apt-get source --only-source "$package"
  mv "$state/unpacked/$package"-*/ "$directory"
)
