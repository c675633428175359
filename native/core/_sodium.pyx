# cython: language_level=3
"""Ed25519 by libsodium: the same arithmetic as `cryptography`'s in less than half its time. Built where libsodium is.

What is strict about keys and signatures is in immured/wire/keys.py, which is the only one to call this.
"""

cdef extern from "sodium.h" nogil:
    int sodium_init()
    int crypto_sign_ed25519_seed_keypair(unsigned char *public, unsigned char *secret, const unsigned char *seed)
    int crypto_sign_ed25519_detached(unsigned char *signature, unsigned long long *length, const unsigned char *message,
                                     unsigned long long size, const unsigned char *secret)
    int crypto_sign_ed25519_verify_detached(const unsigned char *signature, const unsigned char *message,
                                            unsigned long long size, const unsigned char *public)

if sodium_init() < 0:
    raise ImportError("libsodium does not start")


def secret_key(bytes seed not None):
    """The 64 bytes that `sign` takes, of a private key's 32."""
    cdef unsigned char public[32]
    cdef unsigned char secret[64]
    if len(seed) != 32:
        raise ValueError("a seed is 32 bytes")
    crypto_sign_ed25519_seed_keypair(public, secret, seed)
    return secret[:64]


def sign(bytes message not None, bytes secret not None):
    """64 bytes, those of RFC 8032."""
    cdef unsigned char signature[64]
    if len(secret) != 64:
        raise ValueError("a secret key is 64 bytes")
    crypto_sign_ed25519_detached(signature, NULL, message, <unsigned long long>len(message), secret)
    return signature[:64]


def verify(bytes signature not None, bytes message not None, bytes public not None):
    """Whether libsodium takes it. It refuses a few that RFC 8032 takes: an R of small order."""
    if len(signature) != 64 or len(public) != 32:
        raise ValueError("a signature is 64 bytes, a public key 32")
    return crypto_sign_ed25519_verify_detached(signature, message, <unsigned long long>len(message), public) == 0
