#!/usr/bin/env bash
# One command for the day a GPU is there: scripts/gpu_day.sh [--dry-run] [--out DIR] [--part N]
# Finds a Python that has what afftool needs, or makes one from the README's versions, and runs gpu_day.py with it.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

runs() { command -v "$1" >/dev/null && "$1" -c 'import msgspec, numpy, pandas, rich, scipy, torch, typer' 2>/dev/null; }

python=
for candidate in "${PYTHON:-}" "$root/.venv/bin/python" python3; do
  if [ -n "$candidate" ] && runs "$candidate"; then python=$candidate && break; fi
done
if [ -z "$python" ]; then
  python3 -m venv "$root/.venv"
  "$root/.venv/bin/pip" install -q -c "$root/constraints.txt" -e "$root[gpu]"
  python="$root/.venv/bin/python"
fi
exec "$python" "$root/scripts/gpu_day.py" "$@"
