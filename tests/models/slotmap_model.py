# slotmap_model.py - Every interleaving of a few slotmap calls on a small map.
# SPDX-License-Identifier: Apache-2.0
#
# Models arena/slotmap.c under sequential consistency: the slot word (generation, state, pins), the
# limbo stack with its armed bit, the batch that waits for an epoch, the epoch with its open
# sections, and free slots as a set (the magazines move items between owners and decide nothing). A
# map without a finaliser differs in who drains: a flag taken by exchange for `armed`, a stamp for
# the node. A thread is a list of atomic steps; the explorer visits every reachable state once and
# remembers how it came there.
#
# Checked in each state
#   - a section or a pin never reads a payload that was finalised or belongs to another generation;
#   - no slot is free twice, or free in another state than FREE;
#   - no payload is finalised twice.
# Checked when all threads have ended and the epoch was let pass
#   - every slot is free, live, reserved or retired: none is lost in limbo;
#   - every erased payload was finalised or handed out, exactly once.
# Each check is itself checked: the last runs break the protocol on purpose and must be caught.
#
# Run: python3 tests/models/slotmap_model.py      exits 0 if all is well, 1 on a violation
import sys
from collections import deque

FREE, RESERVED, FILLING, LIVE, CLOSING, TAKING, RETIRED = (
    'FREE', 'RESERVED', 'FILLING', 'LIVE', 'CLOSING', 'TAKING', 'RETIRED')
LAST_GENERATION = 3


class Violation(Exception):
    pass


class State:
    """All shared memory, plus each thread's program counter and registers; copied at every step."""

    def __init__(self, words, payloads, threads):
        self.word = list(words)          # (generation, state, pins)
        self.payload = list(payloads)    # None or the generation that owns it
        self.free = tuple(i for i, w in enumerate(words) if w[1] == FREE)
        self.limbo = ()                  # newest first
        self.armed = False
        self.batch = ()
        self.stamp = None                # of the batch; None: no batch is under way
        self.epoch = 2
        self.section = [None] * threads  # epoch at entry of each open section
        self.finalised = ()              # (slot, generation), in order
        self.taken = ()                  # handed out by erase_wait
        self.pc = [0] * threads
        self.reg = [()] * threads        # sorted tuples of (name, value)

    def copy(self):
        s = State.__new__(State)
        for k, v in self.__dict__.items():
            s.__dict__[k] = list(v) if isinstance(v, list) else v
        return s

    def key(self):
        low = min([self.epoch] + [e for e in self.section if e is not None] +
                  [e for e in [self.stamp] if e is not None])
        rel = lambda e: None if e is None else e - low
        return (tuple(self.word), tuple(self.payload), self.free, self.limbo, self.armed,
                self.batch, rel(self.stamp), rel(self.epoch), tuple(rel(e) for e in self.section),
                tuple(sorted(self.finalised)), tuple(sorted(self.taken)), tuple(self.pc),
                tuple(tuple((k, rel(v) if k == 'stamp' else v) for k, v in r) for r in self.reg))


def get_reg(s, t, name):
    return dict(s.reg[t]).get(name)


def set_reg(s, t, **values):
    r = dict(s.reg[t])
    r.update(values)
    s.reg[t] = tuple(sorted(r.items()))


# --- pieces of the protocol; each call happens in one atomic step ---------------------------------

def recycle(s, slot):
    generation, _, pins = s.word[slot]
    if pins:
        raise Violation('recycled under a pin')
    s.payload[slot] = None
    if generation == LAST_GENERATION:
        s.word[slot] = (generation, RETIRED, 0)
        return
    s.word[slot] = (generation + 1, FREE, 0)
    if slot in s.free:
        raise Violation('a slot is free twice')
    s.free += (slot,)


def finalise(s, slot):
    generation = s.word[slot][0]
    if (slot, generation) in s.finalised or (slot, generation) in s.taken:
        raise Violation('a payload is finalised twice')
    if s.payload[slot] != generation:
        raise Violation('a payload of another generation is finalised')
    s.finalised += ((slot, generation),)
    recycle(s, slot)


def arm(s):
    s.batch, s.limbo, s.armed = s.limbo, (), True
    s.stamp = s.epoch


def push(s, slot):
    """The compare-and-swap of limbo_push(); true: this thread has to arm."""
    s.limbo = (slot,) + s.limbo
    first = not s.armed
    s.armed = True
    return first


def passed(s, stamp, rules):
    return 'no epoch' in rules or s.epoch >= stamp + 2


# --- threads: lists of steps; a step changes the state and says where to go on --------------------
# A step returns the next pc, or None when it cannot run now (it waits for another thread).

def reserve_commit(end):
    """end: 'commit' or 'abort'; a failed reserve ends the thread."""
    def take(s, t, rules):
        if not s.free:
            return 'end'
        slot, s.free = s.free[0], s.free[1:]
        if s.word[slot][1] != FREE:
            raise Violation('took a slot in state ' + s.word[slot][1])
        set_reg(s, t, slot=slot, generation=s.word[slot][0])
        return 1

    def reserve(s, t, rules):
        slot, g = get_reg(s, t, 'slot'), get_reg(s, t, 'generation')
        s.word[slot] = (g, RESERVED, 0)
        return 2

    def claim(s, t, rules):
        slot, g = get_reg(s, t, 'slot'), get_reg(s, t, 'generation')
        if s.word[slot] != (g, RESERVED, 0):
            return 'end'
        s.word[slot] = (g, FILLING if end == 'commit' else CLOSING, 0)
        return 3

    def fill(s, t, rules):
        slot, g = get_reg(s, t, 'slot'), get_reg(s, t, 'generation')
        if end == 'abort':
            recycle(s, slot)
            return 'end'
        if s.payload[slot] is not None:
            raise Violation('a payload is overwritten')
        s.payload[slot] = g
        return 4

    def publish(s, t, rules):
        slot, g = get_reg(s, t, 'slot'), get_reg(s, t, 'generation')
        s.word[slot] = (g, LIVE, 0)
        return 'end'
    return [take, reserve, claim, fill, publish]


def end_reservation(slot, g, end):
    """commit or abort of a reservation that another thread made."""
    steps = reserve_commit(end)

    def begin(s, t, rules):
        set_reg(s, t, slot=slot, generation=g)
        return 2
    return [begin] + steps[1:]


def erase(slot, g):
    def load(s, t, rules):
        if s.word[slot][:2] != (g, LIVE):
            return 'end'
        set_reg(s, t, seen=s.word[slot])
        return 1

    def close(s, t, rules):
        seen = get_reg(s, t, 'seen')
        if s.word[slot] != seen:
            return 0
        s.word[slot] = (g, CLOSING, seen[2])
        return 2 if seen[2] == 0 else 'end'

    def limbo(s, t, rules):
        return 3 if push(s, slot) else 'end'

    def send(s, t, rules):
        arm(s)
        return 'end'
    return [load, close, limbo, send]


def pin_use_unpin(slot, g):
    def load(s, t, rules):
        if s.word[slot][:2] != (g, LIVE):
            return 'end'
        set_reg(s, t, seen=s.word[slot])
        return 1

    def pin(s, t, rules):
        seen = get_reg(s, t, 'seen')
        if s.word[slot] != seen:
            return 0
        s.word[slot] = (g, LIVE, seen[2] + 1)
        return 2

    def use(s, t, rules):
        if s.payload[slot] != g:
            raise Violation('a pin reads a payload that is not its own')
        return 3

    def unpin(s, t, rules):
        _, state, pins = s.word[slot]
        s.word[slot] = (s.word[slot][0], state, pins - 1)
        return 4 if pins == 1 and state == CLOSING else 'end'

    def limbo(s, t, rules):
        return 5 if push(s, slot) else 'end'

    def send(s, t, rules):
        arm(s)
        return 'end'
    return [load, pin, use, unpin, limbo, send]


def get_in_section(slot, g):
    def enter(s, t, rules):
        set_reg(s, t, stamp=s.epoch)
        return 1

    def mark(s, t, rules):  # the epoch read may be stale by the time it is shown
        s.section[t] = get_reg(s, t, 'stamp')
        set_reg(s, t, stamp=None)
        return 2

    def load(s, t, rules):
        return 3 if s.word[slot][:2] == (g, LIVE) else 4

    def use(s, t, rules):
        if s.payload[slot] != g:
            raise Violation('a section reads a payload that is not its own')
        return 4

    def leave(s, t, rules):
        s.section[t] = None
        return 'end'
    return [enter, mark, load, use, leave]


def erase_wait(slot, g, patient):
    """patient: no timeout. Else a timeout may strike at either wait."""
    def load(s, t, rules):
        if s.word[slot][:2] != (g, LIVE):
            return 'end'
        set_reg(s, t, seen=s.word[slot])
        return 1

    def close(s, t, rules):
        seen = get_reg(s, t, 'seen')
        if s.word[slot] != seen:
            return 0
        s.word[slot] = (g, TAKING, seen[2])
        return 2

    def pins(s, t, rules):
        if s.word[slot][2] == 0:
            set_reg(s, t, stamp=s.epoch)
            return 3
        if patient:
            return None
        s.word[slot] = (g, CLOSING, s.word[slot][2])  # the compare-and-swap that hands over
        return 'end'

    def wait(s, t, rules):
        if passed(s, get_reg(s, t, 'stamp'), rules):
            return 4
        if patient:
            return None
        s.word[slot] = (g, CLOSING, 0)
        return 5

    def hand_out(s, t, rules):
        if s.payload[slot] != g or (slot, g) in s.finalised or (slot, g) in s.taken:
            raise Violation('a payload is handed out twice')
        s.taken += ((slot, g),)
        set_reg(s, t, stamp=None)
        recycle(s, slot)
        return 'end'

    def limbo(s, t, rules):
        set_reg(s, t, stamp=None)
        return 6 if push(s, slot) else 'end'

    def send(s, t, rules):
        arm(s)
        return 'end'
    return [load, close, pins, wait, hand_out, limbo, send]


# --- the background: epoch advances and the batch's drain; may run at any time --------------------

def background(s, rules):
    """The states one step of the background leads to."""
    out = []
    # An advance is of use only while something waits; this keeps the state space finite.
    wanted = s.stamp is not None or any(get_reg(s, t, 'stamp') is not None and s.section[t] is None
                                        for t in range(len(s.pc)))
    if wanted and s.epoch < 12 and all(e is None or e == s.epoch for e in s.section):
        n = s.copy()
        n.epoch += 1
        out.append(('advance', n))
    if s.stamp is not None and passed(s, s.stamp, rules):
        n = s.copy()
        if n.batch:
            slot, n.batch = n.batch[0], n.batch[1:]
            finalise(n, slot)
        elif n.limbo and 'no rearm' not in rules:
            arm(n)
        else:
            n.armed, n.stamp = False, None
        out.append(('drain', n))
    return out


def successors(s, programs, rules):
    for t, program in enumerate(programs):
        if s.pc[t] != 'end':
            n = s.copy()
            step = program[n.pc[t]]
            pc = step(n, t, rules)
            if pc is not None:
                n.pc[t] = pc if pc == 'end' or pc < len(program) else 'end'
                yield '%d:%s' % (t, step.__name__), n
    for label, n in background(s, rules):
        yield label, n


def check_end(s):
    """All threads have ended and the background has nothing left to do."""
    for slot, (generation, state, pins) in enumerate(s.word):
        if state == FREE and slot not in s.free:
            raise Violation('a free slot is lost')
        if state not in (FREE, LIVE, RESERVED, RETIRED):
            raise Violation('a slot stays in state ' + state)
        if state == LIVE and (pins or s.payload[slot] != generation):
            raise Violation('a live slot without its payload, or with a forgotten pin')
    if s.limbo or s.batch or s.armed:
        raise Violation('limbo is left full')


def explore(name, start, programs, rules=(), expect=None):
    """Breadth first. Returns True when the outcome is the expected one."""
    seen = {start.key()}
    queue = deque([(start, ())])
    ends = 0
    found = None
    while queue and found is None:
        s, path = queue.popleft()
        moved = False
        try:
            for label, n in successors(s, programs, rules):
                moved = True
                k = n.key()
                if k not in seen:
                    seen.add(k)
                    queue.append((n, (path, label)))
            if not moved:
                if any(pc != 'end' for pc in s.pc):
                    raise Violation('a thread waits for ever')
                ends += 1
                check_end(s)
        except Violation as v:
            found = (str(v), path)
    good = (found is None) if expect is None else (found is not None and expect in found[0])
    text = 'none' if found is None else found[0]
    print('%-62s %7d states %4d ends  violation: %s%s' %
          (name, len(seen), ends, text, '' if expect is None else ' (wanted)'))
    if not good and found is not None:
        steps = []
        path = found[1]
        while path:
            path, label = path
            steps.append(label)
        print('    ' + ' '.join(reversed(steps)))
    return good


def world(threads, *slots):
    """slots: (generation, state); live ones have their payload."""
    return State([(g, state, 0) for g, state in slots],
                 [g if state == LIVE else None for g, state in slots], threads)


def main():
    one = (1, LIVE)
    none = (1, FREE)
    runs = [
        ('insert || erase', world(2, one, none), [reserve_commit('commit'), erase(0, 1)]),
        ('insert || erase on the only slot', world(2, one),
         [reserve_commit('commit'), erase(0, 1)]),
        ('erase || erase', world(2, one), [erase(0, 1), erase(0, 1)]),
        ('pin || erase', world(2, one), [pin_use_unpin(0, 1), erase(0, 1)]),
        ('pin || pin || erase', world(3, one),
         [pin_use_unpin(0, 1), pin_use_unpin(0, 1), erase(0, 1)]),
        ('get || erase || insert on the only slot', world(3, one),
         [get_in_section(0, 1), erase(0, 1), reserve_commit('commit')]),
        ('get || pin || erase || insert', world(4, one),
         [get_in_section(0, 1), pin_use_unpin(0, 1), erase(0, 1), reserve_commit('commit')]),
        ('erase of two slots || pin || get: batches follow each other', world(4, one, one),
         [erase(0, 1), erase(1, 1), pin_use_unpin(0, 1), get_in_section(1, 1)]),
        ('erase of three slots', world(3, one, one, one), [erase(0, 1), erase(1, 1), erase(2, 1)]),
        ('commit || abort of one reservation', world(2, (1, RESERVED)),
         [end_reservation(0, 1, 'commit'), end_reservation(0, 1, 'abort')]),
        ('commit || commit || abort of one reservation', world(3, (1, RESERVED)),
         [end_reservation(0, 1, 'commit'), end_reservation(0, 1, 'commit'),
          end_reservation(0, 1, 'abort')]),
        ('reserve, abort || reserve, commit || erase', world(3, none, one),
         [reserve_commit('abort'), reserve_commit('commit'), erase(1, 1)]),
        ('erase_wait || pin || get', world(3, one),
         [erase_wait(0, 1, True), pin_use_unpin(0, 1), get_in_section(0, 1)]),
        ('erase_wait with timeout || pin || get', world(3, one),
         [erase_wait(0, 1, False), pin_use_unpin(0, 1), get_in_section(0, 1)]),
        ('erase_wait || erase || pin', world(3, one),
         [erase_wait(0, 1, False), erase(0, 1), pin_use_unpin(0, 1)]),
        ('erase_wait || get || insert on the only slot', world(3, one),
         [erase_wait(0, 1, True), get_in_section(0, 1), reserve_commit('commit')]),
        ('last generation: erase || get || insert', world(3, (LAST_GENERATION, LIVE)),
         [erase(0, LAST_GENERATION), get_in_section(0, LAST_GENERATION), reserve_commit('commit')]),
    ]
    broken = [
        ('broken: finalise without an epoch', world(3, one),
         [get_in_section(0, 1), erase(0, 1), reserve_commit('commit')], ('no epoch',),
         'section reads'),
        ('broken: a drain that does not look at limbo again', world(2, one, one),
         [erase(0, 1), erase(1, 1)], ('no rearm',), 'stays in state'),
    ]
    good = [explore(*r) for r in runs] + [explore(*r) for r in broken]
    return 0 if all(good) else 1


if __name__ == '__main__':
    sys.exit(main())
