// Counter-based random numbers: a value depends on (seed, stream, counter), never on who asks
// first, so that initial weights, shuffles and data are the same on every device and after every
// resume. There is no state to save.
#ifndef BT_BASE_RNG_H
#define BT_BASE_RNG_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct bt_random4 {
    uint32_t v[4];
} bt_random4;

// Streams keep the users of one seed apart.
enum { BT_STREAM_INIT = 1, BT_STREAM_SHUFFLE, BT_STREAM_SPLIT, BT_STREAM_DIGITS, BT_STREAM_USER };

// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
static inline bt_random4 bt_philox(uint64_t seed, uint32_t stream, uint64_t counter) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    bt_random4 c = {{(uint32_t)counter, (uint32_t)(counter >> 32), stream, 0}};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c.v[0], b = (uint64_t)0xCD9E8D57u * c.v[2];
        c = (bt_random4){{(uint32_t)(b >> 32) ^ c.v[1] ^ k0, (uint32_t)b,
                          (uint32_t)(a >> 32) ^ c.v[3] ^ k1, (uint32_t)a}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Uniform in [0, 1) with 24 bits, exact in a float.
static inline float bt_uniform(uint32_t bits) {
    return (float)(bits >> 8) * 0x1p-24f;
}

// Of one block: a + (b - a) u, or normal, a + b sqrt(-2 log(1 - u)) cos(2 pi v) (Box and Muller,
// 1958). 1 - u is in (0, 1].
static inline double bt_random_real(bt_random4 block, bool normal, double a, double b) {
    double u = (double)bt_uniform(block.v[0]), v = (double)bt_uniform(block.v[1]);
    if (!normal) return a + (b - a) * u;
    double radius = sqrt(-2.0 * log(1.0 - u));
    return a + b * radius * cos(6.283185307179586 * v);
}

static inline uint32_t bt_mix32(uint32_t x) { // "lowbias32", C. Wellons, 2018
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// Position i of a keyed permutation of 0 .. n-1 (n > 0): a Feistel network of four rounds on the
// next even number of bits, walked until it lands inside (Black and Rogaway, "Ciphers with
// arbitrary finite domains", CT-RSA 2002). Any step of any epoch is found without the others.
static inline uint32_t bt_permute_index(uint32_t i, uint32_t n, uint32_t key) {
    uint32_t half = 1;
    while (half < 16 && (1ull << (2 * half)) < n) half++;
    uint32_t mask = (1u << half) - 1;
    do {
        uint32_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t next = left ^ (bt_mix32(right + key + round * 0x9E3779B9u) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

// The key of an epoch's shuffle.
static inline uint32_t bt_epoch_key(uint32_t seed, uint32_t epoch) {
    return bt_mix32(seed ^ bt_mix32(epoch + 0x51ED270Bu));
}

#endif
