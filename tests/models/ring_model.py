#!/usr/bin/env python3
# ring_model.py - Explores every interleaving of the ring's protocol as arena/ring*.c implement it.
# SPDX-License-Identifier: Apache-2.0
"""Sequentially consistent, entries of one or two units, memoised depth-first search over whole states.
One step of a thread is one atomic operation of the code. Modelled: the tail's CAS apart from the
store of the descriptor; shrink; publish; discard and hole reuse; claims by a walk from a cursor
that is a plain store; completion as clean or, after a failed write, ready again; the reclaimer's
try-lock, EVICTED, epoch stamp, head; readers in epoch sections (enter, read the published address,
check tag and state, use the bytes); the epoch: an advance needs every open section to show the
present epoch, a stamp has passed at stamp + 2. Not modelled: second chance, pins, weak memory.

Checked in every state: evict <= tail, head <= evict, tail - head <= capacity; no unit is entered
while it is live; a reader's bytes do not change before its section ends.
Checked at the end: every published dirty entry was written exactly once. Sleeps are timed in the
code, so a thread that finds nothing to do tries again; from every state the end must be reachable
(no deadlock, and no loop without a way out).
Exit code 0: no violation. `ring_model.py --broken` drops the epoch check or the claim rule and must
find the violation; the exit code is then 0 when it is found. Runs a minute at most.
"""
import sys

PAD, RSV, FILL, DISC, EVICTED, READY, WRITING, CLEAN = range(8)
READABLE = (READY, WRITING, CLEAN)
NAMES = ("PAD RESERVED FILLING DISCARDED EVICTED READY WRITING CLEAN").split()


class State:
    """All shared memory. Tuples and ints only, so that a copy and a key are cheap."""
    __slots__ = ("cap", "tail", "head", "evict", "claim", "lock", "epoch", "stamps", "stamped",
                 "desc", "data", "active", "where", "hole", "out", "bad", "fails", "published")

    def __init__(self, cap, threads, fails):
        self.cap, self.tail, self.head, self.evict, self.claim = cap, cap, cap, cap, cap  # lap 1
        self.lock, self.epoch, self.stamps, self.stamped = 0, 2, (), cap
        self.desc = ((None, 0, 0),) * cap  # state, tag (address), units
        self.data = (None,) * cap
        self.active = (0,) * threads
        self.where = 0  # the newest entry's address, as a cached_blocks element would hold it
        self.hole = 0
        self.out, self.bad, self.fails, self.published = (), None, fails, ()

    def key(self):
        return tuple(getattr(self, n) for n in State.__slots__)

    def copy(self):
        s = State.__new__(State)
        for n in State.__slots__:
            setattr(s, n, getattr(self, n))
        return s

    def get(self, a):
        return self.desc[a % self.cap]

    def put(self, a, state, units):
        d = list(self.desc)
        d[a % self.cap] = (state, a, units)
        self.desc = tuple(d)

    def write(self, a, units, value):
        d = list(self.data)
        for i in range(units):
            d[(a + i) % self.cap] = value
        self.data = tuple(d)

    def fail(self, text):
        self.bad = self.bad or text


# A thread is a tuple (pc, locals...). A program's step(s, me, t) changes s by one atomic operation and
# returns the thread's next tuple, None when it is finished.

BROKEN = ""


def fits(s, units):
    return s.tail + units <= s.head + s.cap


def reserve(s, units, value, me):
    """The tail's CAS; physical wrap is left out: addresses are linear, units are mod capacity."""
    a = s.tail
    s.tail = a + units
    for u in range(units):
        if a + u - s.cap >= s.head:
            s.fail("unit reserved before the head passed it")
    return a


def epoch_scan(s):
    return all(e == 0 or e == s.epoch for e in s.active)


def passed(s, stamp):
    if BROKEN == "epoch":
        return True
    for _ in range(2):
        if s.epoch >= stamp + 2:
            return True
        if not epoch_scan(s):
            return False
        s.epoch += 1
    return s.epoch >= stamp + 2


def reclaim_step(s, pc, loc):
    """One entry or one decision of the reclaimer. Returns (pc, loc), None when it is over."""
    if pc == "lock":
        if s.lock:
            return None
        s.lock = 1
        return ("release", loc)
    if pc == "release":
        if s.stamps and passed(s, s.stamps[0][1]):
            s.head = s.stamps[0][0]
            s.stamps = s.stamps[1:]
            return ("release", loc)
        return ("walk", s.evict) if loc is None else ("unlock", loc)
    if pc == "walk":  # loc: local cursor, stored in one piece at the end
        e = loc
        if e >= s.tail:
            return ("store", e)
        state, tag, units = s.get(e)
        if tag != e or state in (RSV, FILL, READY, WRITING):
            return ("store", e)
        s.put(e, EVICTED, units)
        return ("walk", e + units)
    if pc == "store":
        s.evict = loc
        return ("stamp", loc)
    if pc == "stamp":
        if s.evict != s.stamped:
            s.stamps += ((s.evict, s.epoch),)
            s.stamped = s.evict
        return ("release", "again")
    if pc == "unlock":
        s.lock = 0
        return None
    raise AssertionError(pc)


def producer(jobs):
    """jobs: tuple of (units, kept units, kind), kind 'dirty', 'fill' or 'discard'."""
    def step(s, me, t):
        pc, n, a, sub = t
        if n == len(jobs):
            return None
        units, keep, kind = jobs[n]
        value = (me, n)
        if pc == "start":
            if kind != "dirty" and s.hole:
                h = s.hole
                s.hole = 0
                state, tag, u = s.get(h)
                if state == DISC and tag == h and u == units:
                    s.put(h, FILL, u)
                    return ("build", n, h, None)
                return ("start", n, 0, None)
            if fits(s, units):
                return ("enter", n, reserve(s, units, value, me), None)
            return ("reclaim", n, 0, ("lock", None))
        if pc == "reclaim":
            nxt = reclaim_step(s, *sub)
            if nxt is not None:
                return ("reclaim", n, 0, nxt)
            return ("start", n, 0, None)
        if pc == "enter":
            s.put(a, RSV if kind == "dirty" else FILL, units)
            return ("build", n, a, None)
        if pc == "build":
            s.write(a, units, value)
            return ("shrink" if keep != units else "publish", n, a, None)
        if pc == "shrink":
            if kind == "dirty" and s.tail == a + units:
                s.tail = a + keep
            else:
                s.put(a + keep, PAD, units - keep)
            return ("units", n, a, None)
        if pc == "units":
            s.put(a, s.get(a)[0], keep)
            return ("publish", n, a, None)
        if pc == "publish":
            if kind == "discard":
                s.put(a, DISC, s.get(a)[2])
                s.hole = a
            elif kind == "fill":
                s.put(a, CLEAN, s.get(a)[2])
                s.where = a
            else:
                s.put(a, READY, s.get(a)[2])
                s.published += (value,)
                s.where = a
            return ("start", n + 1, 0, None)
        raise AssertionError(pc)
    return step, ("start", 0, 0, None)


def evictor(total):
    """Writes until `total` dirty entries were written by all evictors together."""
    def step(s, me, t):
        pc, p, settled, clean, epoch = t
        if pc == "enter":
            if len(s.out) >= total:
                return None
            active = list(s.active)
            active[me] = s.epoch
            s.active = tuple(active)
            start = max(s.claim, s.evict)
            return ("scan", start, start, True, 0)
        if pc == "scan":
            if p >= s.tail:
                return ("store", 0, settled, clean, 0)
            state, tag, units = s.get(p)
            if tag != p:
                return ("store", 0, settled, clean, 0)
            if state == READY:
                s.put(p, WRITING, units)
                return ("store", p, settled, clean, 0)
            passes = (RSV, WRITING) if BROKEN != "claim" else ()
            clean = clean and state not in passes
            # the entry's size is read by a second load: that of this state or of a later one
            return ("size", p, settled, clean, 0)
        if pc == "size":
            nxt = p + s.get(p)[2] if s.get(p)[1] == p else p + 1
            return ("scan", nxt, nxt if clean else settled, clean, 0)
        if pc == "store":
            s.claim = settled  # a plain store: may go back
            active = list(s.active)
            active[me] = 0
            s.active = tuple(active)
            return ("write" if p else "enter", p, 0, True, 0)
        if pc == "write":
            if s.fails:
                s.fails -= 1
                return ("again", p, 0, True, 0)
            s.out += (s.data[p % s.cap],)
            return ("done", p, 0, True, 0)
        if pc == "again":
            s.put(p, READY, s.get(p)[2])
            return ("enter", 0, 0, True, 0)
        if pc == "done":
            s.put(p, CLEAN, s.get(p)[2])
            return ("enter", 0, 0, True, 0)
        raise AssertionError(pc)
    return step, ("enter", 0, 0, True, 0)


def reader(rounds):
    def step(s, me, t):
        pc, n, a, seen = t
        if n == rounds:
            return None
        if pc == "enter":
            active = list(s.active)
            active[me] = s.epoch
            s.active = tuple(active)
            return ("addr", n, 0, None)
        if pc == "addr":
            return ("check", n, s.where, None) if s.where else ("exit", n, 0, None)
        if pc == "check":
            state, tag, units = s.get(a)
            if tag != a or state not in READABLE:
                return ("exit", n, 0, None)
            return ("use", n, a, s.data[a % s.cap])
        if pc == "use":
            if s.data[a % s.cap] != seen:
                s.fail("a reader's bytes changed inside its section")
            return ("exit", n, 0, None)
        if pc == "exit":
            active = list(s.active)
            active[me] = 0
            s.active = tuple(active)
            return ("enter", n + 1, 0, None)
        raise AssertionError(pc)
    return step, ("enter", 0, 0, None)


def trace_of(origin, node):
    out = []
    while origin[node] is not None:
        node, thread, pc = origin[node]
        out.append("%d:%s" % (thread, pc))
    return " ".join(reversed(out))


def explore(name, cap, programs, dirty, fails=0, limit=1500000):
    """True when nothing is wrong; prints one line, and the shortest known way to what is."""
    s0 = State(cap, len(programs), fails)
    threads0 = tuple(p[1] for p in programs)
    number = {(s0.key(), threads0): 0}
    origin, before, ends = [None], [[]], []

    def report(bad, node):
        print("%-62s %8d states %6d ends  %s" % (name, len(origin), len(ends), bad or "ok"),
              flush=True)
        if bad:
            print("    trace:", trace_of(origin, node))
        return bad is None

    stack = [(s0, threads0, 0)]
    while stack:
        s, threads, node = stack.pop()
        running = [i for i, t in enumerate(threads) if t is not None]
        if not running:
            ends.append(node)
            if len(s.out) != dirty or sorted(s.out) != sorted(s.published):
                return report("written %s of %s" % (s.out, s.published), node)
        for i in running:
            c = s.copy()
            t = programs[i][0](c, i, threads[i])
            if not c.head <= c.evict <= c.tail <= c.head + c.cap:
                c.fail("frontiers out of order: %d %d %d" % (c.head, c.evict, c.tail))
            nxt = threads[:i] + (t,) + threads[i + 1:]
            key = (c.key(), nxt)
            known = number.get(key)
            if known is not None:
                before[known].append(node)
                continue
            number[key] = new = len(origin)
            origin.append((node, i, threads[i][0]))
            before.append([node])
            if c.bad:
                return report(c.bad, new)
            if new > limit:
                return report("more than %d states" % limit, 0)
            stack.append((c, nxt, new))
    alive = bytearray(len(origin))
    todo = list(ends)
    while todo:
        node = todo.pop()
        if not alive[node]:
            alive[node] = 1
            todo.extend(before[node])
    stuck = alive.find(0)
    return report(None if stuck < 0 else "no way to the end", max(stuck, 0))


D, F, X = "dirty", "fill", "discard"


def main():
    global BROKEN
    if "--broken" in sys.argv:
        BROKEN = "epoch"
        a = explore("broken: reuse without the epoch", 1,
                    [producer(((1, 1, F),) * 2), reader(1)], 0)
        BROKEN = "claim"
        b = explore("broken: the claim cursor passes reservations", 2,
                    [producer(((1, 1, D),) * 1), producer(((1, 1, D),)), evictor(2)], 2)
        sys.exit(0 if not a and not b else 1)
    ok = True
    one = (1, 1, D)
    ok &= explore("1 producer x3, 1 evictor, 1 unit", 1, [producer((one,) * 3), evictor(3)], 3)
    ok &= explore("1 producer x3, 1 evictor, 2 units", 2, [producer((one,) * 3), evictor(3)], 3)
    ok &= explore("2 producers, 1 evictor, 2 units", 2,
                  [producer((one,) * 2), producer((one,)), evictor(3)], 3)
    ok &= explore("1 producer x2, 2 evictors, 2 units", 2,
                  [producer((one,) * 2), evictor(2), evictor(2)], 2)
    ok &= explore("a write that fails once, 2 evictors, 1 unit", 1,
                  [producer((one,) * 2), evictor(2), evictor(2)], 2, fails=1)
    ok &= explore("filler x3 and a reader, 1 unit", 1, [producer(((1, 1, F),) * 3), reader(2)], 0)
    ok &= explore("filler x3 and two readers, 2 units", 2,
                  [producer(((1, 1, F),) * 3), reader(1), reader(1)], 0)
    ok &= explore("producer, filler, evictor, reader, 2 units", 2,
                  [producer((one,)), producer(((1, 1, F),)), evictor(1), reader(1)], 1)
    ok &= explore("shrink at the tail beside a producer, evictor, 4 units", 4,
                  [producer(((2, 1, D),) * 2), producer((one,)), evictor(3)], 3)
    ok &= explore("discard and hole reuse, 2 fillers, evictor, 3 units", 3,
                  [producer(((1, 1, X), (1, 1, F))), producer((one, (1, 1, F))), evictor(1)], 1)
    ok &= explore("a hole shrunk at the tail, then dirty, evictor, 4 units", 4,
                  [producer(((2, 2, X), (2, 1, F), one)), evictor(1)], 1)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
