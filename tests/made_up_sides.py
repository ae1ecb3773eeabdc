"""Made-up sides of a contest, on a machine that is made up too: a clock, noise and luck, and no process."""

import random


class Machine:
    """One clock for all its sides, drifting and noisy, and a list of who was asked for what.

    Processes differ by `luck`, a standard deviation; each draws its level when it starts.
    """

    def __init__(self, seed=0, *, noise=0.01, drift=0.0, luck=0.0):
        self.now = 0.0
        self.random = random.Random(seed)
        self.noise, self.drift, self.luck = noise, drift, luck
        self.asked = []

    def side(self, name, step_ms):
        return MadeUpSide(self, name, step_ms)


class MadeUpSide:
    """A side that takes `step_ms` a step, or for each name of a case what it says there; an error there is raised."""

    def __init__(self, machine, name, step_ms):
        self.machine, self.name, self.step_ms = machine, name, step_ms
        self.started, self.level, self.pending = 0, None, None

    def start(self):
        self.started += 1
        self.level = self.machine.random.lognormvariate(0, self.machine.luck)
        self.machine.asked.append(("start", self.name))

    def wait(self):
        if self.level is None:
            self.start()

    def stop(self):
        self.level = None

    def send(self, question, **fields):
        self.wait()
        self.pending = (question, fields)

    def answer(self):
        question, fields = self.pending
        machine = self.machine
        case = fields["case"].get("name")
        machine.asked.append((question, self.name, case, fields.get("core")))
        step_ms = self.step_ms[case] if isinstance(self.step_ms, dict) else self.step_ms
        if isinstance(step_ms, Exception):
            raise step_ms
        step_ms *= self.level * (1 + machine.drift * machine.now)
        step_ms *= 1 + abs(machine.random.gauss(0, machine.noise))
        machine.now += step_ms / 1000 * fields.get("steps", 10)
        return {"step_ms": step_ms}

    def ask(self, question, **fields):
        self.send(question, **fields)
        return self.answer()
