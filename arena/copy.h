/* copy.h - Copies of keys and values, most of which are short, without a call.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_COPY_H_
#define LOAM_ARENA_COPY_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define COPY_SHORT_MAX 512u /* bytes; from there on a call of memcpy costs little beside them */

static inline void copy_piece_(uint8_t *to, const uint8_t *from)
{
    typedef long long piece __attribute__((vector_size(16), aligned(1), may_alias));
    *(piece *)to = *(const piece *)from;
}

/* As memcpy: the two do not overlap. n 0: either may be NULL. */
static inline void copy_bytes(void *to, const void *from, size_t n)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if (n > COPY_SHORT_MAX) {
        memcpy(d, s, n);
    } else if (n >= 16) {
        /* The last piece may overlap the one before it. */
        for (size_t i = 0; i < n - 16; i += 16) {
            copy_piece_(d + i, s + i);
            __asm__ volatile("" ::: "memory"); /* or the compiler makes a call of it again */
        }
        copy_piece_(d + n - 16, s + n - 16);
    } else if (n >= 8) {
        memcpy(d, s, 8);
        memcpy(d + n - 8, s + n - 8, 8);
    } else if (n >= 4) {
        memcpy(d, s, 4);
        memcpy(d + n - 4, s + n - 4, 4);
    } else if (n != 0) {
        d[0] = s[0];
        d[n / 2] = s[n / 2];
        d[n - 1] = s[n - 1];
    }
}

#endif
