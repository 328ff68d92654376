/* hash.c - XXH3 behind the two names.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/hash.h"

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#if defined(LOAM_HAVE_XXH_DISPATCH)
/* The library's, with the widest vectors that the processor has. Its header cannot be included beside
 * the inlined functions; the build checks the name. Weak, for the shared library may have them where the
 * static one, which a user may link instead, has not. */
__attribute__((weak)) XXH64_hash_t XXH3_64bits_withSeed_dispatch(const void *data, size_t size,
                                                                 XXH64_hash_t seed);
__attribute__((weak)) XXH_errorcode XXH3_64bits_update_dispatch(XXH3_state_t *state, const void *data,
                                                                size_t size);
#define LONG_INPUT 241u /* bytes from which on vectors are used at all */

/* Its AVX code returns with the upper halves of the vector registers in use, and in use they stay. From then on
 * every change of this thread between code that knows them (the C library's copies) and code that does not
 * (most programs) costs it 150 ns, three of them a put: Sapphire Rapids. */
static void leave_vectors(void)
{
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vzeroupper" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    }
}
#endif

#include "arena/poison.h"

/* Short inputs (keys, small records) are faster inlined than through the library. */
uint64_t hash_key(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

uint64_t checksum64(const void *data, size_t size, uint64_t seed)
{
#if defined(LOAM_HAVE_XXH_DISPATCH)
    if (size >= LONG_INPUT && XXH3_64bits_withSeed_dispatch != NULL) {
        uint64_t sum = XXH3_64bits_withSeed_dispatch(data, size, seed);
        leave_vectors();
        return sum;
    }
#endif
    return XXH3_64bits_withSeed(data, size, seed);
}

_Static_assert(sizeof(XXH3_state_t) <= sizeof(struct checksum_stream), "opaque state too small");

void checksum_begin(struct checksum_stream *s, uint64_t seed)
{
    XXH3_state_t *state = (XXH3_state_t *)(void *)s->opaque_;
    /* A reset keeps the secret of a state that claims to have this seed already; memory from the
     * stack may claim that falsely. */
    XXH3_INITSTATE(state);
    XXH3_64bits_reset_withSeed(state, seed);
}

void checksum_add(struct checksum_stream *s, const void *data, size_t size)
{
    XXH3_state_t *state = (XXH3_state_t *)(void *)s->opaque_;
#if defined(LOAM_HAVE_XXH_DISPATCH)
    if (size >= LONG_INPUT && XXH3_64bits_update_dispatch != NULL) {
        XXH3_64bits_update_dispatch(state, data, size); /* of the same state: it is public */
        leave_vectors();
        return;
    }
#endif
    if (size != 0) {
        XXH3_64bits_update(state, data, size);
    }
}

uint64_t checksum_end(struct checksum_stream *s)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)s->opaque_);
}
