"""The proof: a signed view of a lease's journal, and the program that tries to prove it wrong.

`statement.build` derives every field from the journal and nothing else, `sign` puts an Ed25519 signature around it,
`bundle` writes the folder, and `verify` takes a stranger's folder apart: signature, digests, chain, and then the same
derivation once more, so that a field nobody could have derived is found even when the key's owner wrote it.

What the tiers mean is said in `limits`: a client's signature makes the testimony hard to rewrite by others; it does
not make it true. These modules read bytes; they know no cloud, no engine and no terminal, and open no network.
"""
