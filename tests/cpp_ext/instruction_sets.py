import cpp_ext


def sets():
    """The instruction sets that this machine can run."""
    if not cpp_ext.compiled():
        return []
    found = []
    for name in ("avx512", "avx2", "neon", "baseline"):
        try:
            cpp_ext.set_isa(name)
        except ValueError:
            continue
        found.append(name)
    cpp_ext.set_isa("")
    return found
