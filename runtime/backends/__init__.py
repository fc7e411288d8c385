"""Engines that run graphs, one file each. `runtime.session` picks one."""
