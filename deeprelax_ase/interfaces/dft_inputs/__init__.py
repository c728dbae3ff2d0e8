"""The prediction put into the inputs of a DFT code, with nothing of the set-up lost.

`poscar_text` and `espresso` edit the text of an input, `vasp` knows what else lies in a run folder,
and `swap_and_undo` puts the new file in the old one's place and takes it back.
"""
