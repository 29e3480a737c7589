#!/usr/bin/env bash
# run_blocks.sh DOCUMENT PROGRAM — runs every ```bash block of a document, in order, in a copy of the repository's root.
#
# A block behind `<!-- file: PATH -->` is written to that file first. `./dev run ARGS` runs PROGRAM, which is built
# already; the verbs that set up, build and test are what started this test and are left out.
set -euo pipefail
document=$(realpath "$1") program=$(realpath "$2")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
for entry in configs docs benchmarks plugins tests; do ln -s "$root/$entry" "$entry"; done
mkdir build runs blocks
ln -s "$(dirname "$(dirname "$program")")" build/release
cat >dev <<STUB
#!/usr/bin/env bash
case "\$1" in
  run) shift; exec "$program" "\$@" ;;
  parity) shift; exec "$(dirname "$program")/parity" "\$@" ;;
  setup | build | test | demo) ;;
  *) echo "the stub of ./dev has no verb '\$1'" >&2; exit 1 ;;
esac
STUB
chmod +x dev

awk '
  /^<!-- file: / { file = $3; next }
  /^```/ && inside { close(target); inside = 0; file = ""; next }
  /^```bash$/ { target = sprintf("blocks/%03d.sh", ++count); inside = 1; print "# line " NR > target; next }
  /^```/ && file != "" { target = sprintf("blocks/%03d.sh", ++count); inside = 1; here = file
    print "mkdir -p \"$(dirname " file ")\"; cp blocks/" sprintf("%03d.body", count) " " file > target; close(target)
    target = sprintf("blocks/%03d.body", count); next }
  /^```/ { target = "/dev/null"; inside = 1; next }
  inside { print > target }
' "$document"

shopt -s nullglob
blocks=(blocks/*.sh)
[ ${#blocks[@]} -gt 0 ] || { echo "$document: has no command"; exit 1; }
for block in "${blocks[@]}"; do
  echo "== $(basename "$document"), block $(basename "$block" .sh): $(head -2 "$block" | tail -1)"
  bash -euo pipefail "$block" </dev/null || { echo "failed:"; cat "$block"; exit 1; }
done
