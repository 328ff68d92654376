/* stress.h - Concurrency tests as plain functions, so that two runners can run them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A file of stress tests defines STRESS(module, name) { ... } with the parameter `seed`; it is
 * linked either with stress_criterion.c (each test a Criterion test) or with stress_main.c (a plain
 * main for TSan, valgrind and fault injection; stress_main.c lists its flags).
 * Checks come from check.h. stress_scale multiplies iteration counts (1 by default).
 */
#ifndef LOAM_TESTS_SUPPORT_STRESS_H_
#define LOAM_TESTS_SUPPORT_STRESS_H_

#include <stdint.h>

struct stress_test {
    const char *module;
    const char *name;
    void (*fn)(uint64_t seed);
    struct stress_test *next;
};

extern uint64_t stress_scale;
/* Operations done so far, by the tests that count them; --ops of stress_main.c goes by it. */
extern uint64_t stress_ops;
void stress_register(struct stress_test *t);
struct stress_test *stress_first(void);

#define STRESS(module_, name_)                                                                     \
    static void stress_##module_##_##name_(uint64_t seed);                                         \
    static struct stress_test stress_entry_##module_##_##name_ = {                                 \
        #module_, #name_, stress_##module_##_##name_, 0};                                          \
    __attribute__((constructor)) static void stress_reg_##module_##_##name_(void)                  \
    {                                                                                              \
        stress_register(&stress_entry_##module_##_##name_);                                        \
    }                                                                                              \
    static void stress_##module_##_##name_(uint64_t seed)

/* Runs fn(arg_of(i)) on n threads that start together, and joins them. */
struct crew_member {
    unsigned index;
    unsigned count;
    uint64_t seed; /* different for each member, derived from the test's */
    void *shared;
};
typedef void crew_fn(struct crew_member *m);
void crew_run(unsigned n, crew_fn *fn, void *shared, uint64_t seed);

#endif
