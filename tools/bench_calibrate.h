/* bench_calibrate.h - A fixed piece of work to hold other times against, whatever the machine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One unit is a load that depends on the one before, somewhere in 32 MiB, and a checksum of 512
 * bytes: about what a lookup in memory does. Processor time in units changes less from machine to machine,
 * and from one busy hour to the next, than time on the wall.
 */
#ifndef LOAM_TOOLS_BENCH_CALIBRATE_H_
#define LOAM_TOOLS_BENCH_CALIBRATE_H_

/* Nanoseconds of processor time that one unit takes at this moment: the middle one of five looks of
 * some 20 ms. 0 without memory. */
double bench_calibrate(void);

#endif
