/* write_controller_test.c - Prices are charged to one clock, and no pause passes its limit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Numbers are compared with wide bounds only: real time passes between calls.
 */
#include <criterion/criterion.h>

#include "engine/write_controller.h"
#include "tests/support/check.h"

#define PAUSE 2000u

static struct write_controller c;

static void set_up(void)
{
    write_controller_init(&c, PAUSE);
}

TestSuite(write_controller, .init = set_up);

Test(write_controller, is_open_at_first_and_keeps_its_two_states_apart)
{
    CHECK_EQ(write_controller_state(&c), 0);
    write_controller_pace(&c, 1 << 20);
    CHECK_EQ(write_controller_state(&c), WRITES_PACED);
    write_controller_refuse(&c, true);
    CHECK_EQ(write_controller_state(&c), WRITES_PACED | WRITES_REFUSED);
    write_controller_pace(&c, 0);
    CHECK_EQ(write_controller_state(&c), WRITES_REFUSED);
    write_controller_refuse(&c, false);
    CHECK_EQ(write_controller_state(&c), 0);
}

Test(write_controller, no_pause_is_longer_than_the_limit_however_much_is_owed)
{
    write_controller_pace(&c, 1); /* a byte a second */
    for (int i = 0; i < 1000; i++) {
        CHECK(write_controller_charge(&c, (uint64_t)1 << (i % 31)) <= PAUSE);
    }
}

Test(write_controller, what_the_speed_allows_is_not_held_back)
{
    write_controller_pace(&c, (uint64_t)1 << 40); /* a MiB a microsecond */
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(write_controller_charge(&c, 100), 0);
    }
}

Test(write_controller, more_than_the_speed_allows_waits)
{
    write_controller_pace(&c, 1 << 20); /* 1 KiB a millisecond */
    uint64_t longest = 0;
    for (int i = 0; i < 64; i++) { /* 64 ms worth at once */
        uint64_t wait = write_controller_charge(&c, 1024);
        longest = wait > longest ? wait : longest;
    }
    CHECK(longest > 0);
}

Test(write_controller, a_refund_takes_the_charge_back)
{
    write_controller_pace(&c, 1 << 20);
    write_controller_charge(&c, 1024);
    uint64_t due = atom_load(&c.due_ns, relaxed);
    write_controller_charge(&c, 0); /* moves the clock at most up to the present */
    uint64_t later = atom_load(&c.due_ns, relaxed);
    CHECK(later >= due);
    write_controller_refund(&c, 1024);
    CHECK_EQ(atom_load(&c.due_ns, relaxed), later - 1000000000 / 1024);
}
