# To be sourced: `ensure_venv EXTRA` makes .venv at the top of the checkout, installs the project
# with the extra EXTRA where that has not happened since pyproject.toml last changed, and leaves
# its interpreter in $python. PYTHON names the interpreter to start from (default: python3).

ensure_venv() {
    local stamp=".venv/.installed-$1"
    python=.venv/bin/python
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv .venv
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "Installing into .venv (some minutes the first time) ..."
        "$python" -m pip install --quiet --editable ".[$1]"
        touch "$stamp"
    fi
}
