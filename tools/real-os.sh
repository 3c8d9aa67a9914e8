#!/bin/sh
# The tree that tests/realos boots: a small Debian (or Ubuntu) with systemd, cloud-init, OpenSSH and sudo, of this
# computer's own release and from the package archive that its own apt is set up with.
#
#     tools/real-os.sh [FOLDER]       $GPULEASE_REALOS, or .cache/realos in the checkout
#
# Half a minute to a minute the first time, nothing after that; 250 MB. Needs root and mmdebstrap.
set -eu
cd "$(dirname "$0")/.."
folder="${1:-${GPULEASE_REALOS:-.cache/realos}}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd -P)"

# Two test runs may come at once. The lock goes with this process, however it ends.
exec 9> "$folder/lock"
flock 9

. /etc/os-release
want="$VERSION_CODENAME $(cksum < tools/real-os.sh)"
if [ -f "$folder/ready" ] && [ "$(cat "$folder/ready")" = "$want" ]; then
  echo "tree: there already, in $folder"
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "only root can make a tree with its owners" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed" >&2; exit 1; }
rm -rf "$folder/tree" "$folder/ready"

# The release itself and its updates; what else this computer installs from is not asked.
sources="$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  grep -E " $VERSION_CODENAME(-updates|-security)? (main|universe)\$" | sort -u)"
[ -n "$sources" ] || { echo "apt is set up with no archive of $VERSION_CODENAME" >&2; exit 1; }
apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-)' > "$folder/apt.conf" || :

# In the essential variant apt resolves everything at once, from what the list of a cloud's own image has for us.
mmdebstrap --quiet --mode=root --variant=essential --format=directory --aptopt="$folder/apt.conf" \
  --aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --include=systemd-sysv,dbus,openssh-server,sudo,cloud-init,iproute2,ifupdown,procps \
  "$VERSION_CODENAME" "$folder/tree" - <<END
$sources
END

# As a cloud's image is: no identity of its own yet. The data source is the folder that a test writes its user data to.
rm -f "$folder/tree"/etc/ssh/ssh_host_* "$folder/tree/etc/machine-id" "$folder/tree/etc/hostname"
: > "$folder/tree/etc/machine-id"
echo 'datasource_list: [NoCloud]' > "$folder/tree/etc/cloud/cloud.cfg.d/90-source.cfg"
mkdir -p "$folder/tree/var/lib/cloud/seed/nocloud"
echo "$want" > "$folder/ready"
echo "tree: made in $folder"
