"""Keys and a certificate that are good for nothing but tests."""

from __future__ import annotations

import nkeys

SEED = b"SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"  # from nkeys' own documentation
# For 127.0.0.1, signed by itself (openssl ca -selfsign), from 2020 to 2120, good for nothing but this test.
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyc2RXPwc3O2qQ5Rt
92LWzOifna9FA1hOVBIFRHXN4r+hRANCAAQx5YGp3eXcSV3C4E4kUemdt65inCx1
4KOfdh94pqDwLqMjmY9GXsPPaAZUfGIPJgCIece2Trcq9ronzLEAss4r
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBWDCB/6ADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMeWBqd3l3EldwuBO
JFHpnbeuYpwsdeCjn3YfeKag8C6jI5mPRl7Dz2gGVHxiDyYAiHnHtk63Kva6J8yx
ALLOK6NAMD4wDAYDVR0TBAUwAwEB/zAPBgNVHREECDAGhwR/AAABMB0GA1UdDgQW
BBQOfY+zQQFEVhKVwhODMx7lrFkW0jAKBggqhkjOPQQDAgNIADBFAiEApFX0HzZA
xTK6hAtSh7rDhvfl2t5SGuYhNNJoGOOg17ICIAuDM5HvubXYkxmkWvHf3M8MjCkC
PxNZxoh9or6WHCaf
-----END CERTIFICATE-----
"""
PUBLIC = nkeys.from_seed(bytearray(SEED)).public_key.decode()
