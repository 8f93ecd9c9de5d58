# To be sourced: `ensure_venv EXTRA [FOLDER REQUIREMENT...]` makes FOLDER (.venv) at the top of the
# checkout, installs there the project with the extra EXTRA, and as the requirements want it, where
# that has not happened since pyproject.toml last changed, and leaves the interpreter in $python.
# PYTHON names the one to start from (default: python3).

ensure_venv() {
    local extra=$1 folder=${2-.venv}
    local stamp="$folder/.installed-$extra"
    shift $(($# < 2 ? $# : 2))
    python=$folder/bin/python
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder"
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "Installing into $folder (some minutes the first time) ..."
        "$python" -m pip install --quiet "$@" --editable ".[$extra]"
        touch "$stamp"
    fi
}
