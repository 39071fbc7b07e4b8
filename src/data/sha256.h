// SHA-256 by the names of libmd. macOS has the function in its system library, under names of its
// own.
#ifndef BT_DATA_SHA256_H
#define BT_DATA_SHA256_H

#ifndef __APPLE__
#include <sha2.h>
#else
#include <CommonCrypto/CommonDigest.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef CC_SHA256_CTX SHA2_CTX;

static inline void SHA256Init(SHA2_CTX *sha) {
    CC_SHA256_Init(sha);
}

static inline void SHA256Update(SHA2_CTX *sha, const uint8_t *data, size_t bytes) {
    while (bytes > 0) { // it takes at most 32 bits of them
        CC_LONG n = bytes < (1u << 30) ? (CC_LONG)bytes : 1u << 30;
        CC_SHA256_Update(sha, data, n);
        data += n;
        bytes -= n;
    }
}

static inline void SHA256End(SHA2_CTX *sha, char hex[2 * CC_SHA256_DIGEST_LENGTH + 1]) {
    unsigned char digest[CC_SHA256_DIGEST_LENGTH];
    CC_SHA256_Final(digest, sha);
    for (int i = 0; i < CC_SHA256_DIGEST_LENGTH; i++)
        snprintf(hex + (size_t)i * 2, 3, "%02x", digest[i]);
}
#endif

#endif
