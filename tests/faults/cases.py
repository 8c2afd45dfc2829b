"""The faults that the project handles: what goes wrong, and what the sweep does. docs/faults.md shows them.

A test that causes a fault carries its key, as ``@pytest.mark.fault("key")``; a shell test has a line ``# fault: key``.
``python -m tests.faults.table`` writes the table of docs/faults.md from both.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A row of the table.

    Attributes:
        what: the fault.
        then: what happens.
    """

    what: str
    then: str


FAULTS: dict[str, Fault] = {
    "driver-sigkill": Fault(
        "SIGKILL of the driver, at any moment",
        "the same command resumes; workers end on their own",
    ),
    "worker-sigkill": Fault(
        "SIGKILL of a worker",
        "the trial is assigned again from its last commit and no retry is spent; after three deaths in a row without "
        "a commit it counts as failed",
    ),
    "raylet-sigkill": Fault(
        "SIGKILL of a machine's raylet",
        "its trials commit and end, and are assigned to other machines",
    ),
    "head-sigkill": Fault(
        "SIGKILL of the head",
        "the workers end, the driver after a minute; the same command on a new cluster resumes",
    ),
    "network-cut": Fault(
        "the network between head and worker is cut",
        "Ray gives up the worker after about a minute, its trial continues elsewhere, no retry is spent; the "
        "connection may return at any time",
    ),
    "machine-frozen": Fault(
        "a machine freezes with its trial, is given up and wakes",
        "the same; what its worker still commits is refused because of its older attempt number",
    ),
    "late-writer": Fault(
        "a frozen worker wakes late",
        "its commits are refused; a state file that it was writing does not hide its successor's work",
    ),
    "trial-hangs": Fault(
        "a trial hangs",
        "after `silence_limit_s` without a step, a row or a commit its process is killed, which counts as a failure",
    ),
    "worker-sigterm": Fault(
        "SIGTERM to a worker (spot notice)",
        "the trial commits and ends as *preempted*, which spends no retry; the process ends",
    ),
    "driver-signals": Fault(
        "SIGINT, SIGTERM, SIGHUP to the driver, `--cancel`",
        "trials commit and end, exit code 130; a second signal exits at once",
    ),
    "batch-warning": Fault(
        "a batch system's warning (SLURM's `--signal=USR1@120`, SIGUSR2, SIGXCPU), to the driver or to every process",
        "as SIGTERM; a warning that comes again is no second signal. `python -m trials` too",
    ),
    "term-to-all": Fault(
        "SIGTERM to every process of a run at once, its Ray among them",
        "trials commit and end, exit code 130 within 20 s, without Ray's own wait of a minute",
    ),
    "error-while-stopping": Fault(
        "a signal ends what a trial uses, as processes that load its data; or it fails after it was asked to stop",
        "preempted, not failed: no retry is spent, and it goes on from its last commit",
    ),
    "memory-monitor": Fault(
        "Ray's memory monitor, or Linux, kills a trial's process because memory is short",
        "it is said who did; the trial goes on from its last commit. If others ran beside it, no death is counted, "
        "scheduling pauses for 20 s, and fewer run at once (one more after each 10 minutes without such a death)",
    ),
    "no-cluster": Fault(
        "`--address`, RAY_ADDRESS or Ray's file `ray_current_cluster` names a cluster that is gone, frozen, another "
        "service, of another Ray or Python, without this machine, or with a token that is not here",
        "one line within about 10 s, which says what was found (both versions) and the way out; if only the file "
        "names what is gone, a Ray is started here, which is said",
    ),
    "few-cores": Fault(
        "the process may use less than the machine has (taskset, cgroup v1 or v2, SLURM)",
        "cores, memory and threads are counted by what it may use",
    ),
    "tmp-unfit": Fault(
        "TMPDIR is too long for a socket, absent, or not writable; /tmp/ray is another user's",
        "Ray's files lie in another folder, which is said; one line if there is none",
    ),
    "two-drivers": Fault(
        "two drivers",
        "the second is refused with a message that names the first",
    ),
    "storage-full": Fault(
        "storage full (a path; in the tests `fsync` fails with ENOSPC)",
        "trials wait where they are and scheduling pauses; each logs this once and continues when there is space; a "
        "stop request is obeyed meanwhile",
    ),
    "storage-errs": Fault(
        "the storage errs for a while: EIO, ESTALE, EROFS, EACCES, a timeout, no locks, a lease's lock held for 20 s, "
        "a store that answers 503",
        "each call is repeated with growing pauses for `storage_patience_s` (600); one line with cause and folder, and "
        "one when it works again. No retry is spent, nothing counts as damaged, silence is no failure meanwhile, and a "
        "stop request is obeyed",
    ),
    "storage-errs-for-good": Fault(
        "the storage errs for longer",
        "one line and exit code 74; everything that is committed is kept, and the same command goes on. If only one "
        "machine cannot use it, that machine gets no more trials",
    ),
    "storage-refused": Fault(
        "the storage errs at the start in a way that no waiting mends (read-only, no permission, wrong keys or region, "
        "a clock that S3 refuses)",
        "refused with one line, exit code 2; reports and other commands that run nothing, too",
    ),
    "keys-expired": Fault(
        "keys of an object store expire during a run",
        "as any other error of the storage; new keys in `~/.aws/credentials` are used from the next try on",
    ),
    "no-locks": Fault(
        "a file system without `flock` (Lustre without `-o flock`, some NFS)",
        "refused with one line at the start; no lock is ever replaced by a file that would outlive a kill",
    ),
    "lease-outage": Fault(
        "the storage errs for longer than a lease is patient",
        "who waits for the lease counts anew once it works, so that its living owner keeps it",
    ),
    "leftovers": Fault(
        "temporary files of killed writers",
        "removed at the next start or attempt: at once if their process was one of this machine, otherwise once they "
        "are an hour old; a living writer's file is never touched",
    ),
    "tmp-full": Fault(
        "temporary folder full",
        "refused with one line before anything runs",
    ),
    "checkpoint-damaged": Fault(
        "truncated or corrupted checkpoint of a trial that is not finished, or of a shared trial",
        "set aside; the previous one is used",
    ),
    "rows-damaged": Fault(
        "truncated or corrupted rows or state",
        "set aside; rewritten from the checkpoint",
    ),
    "finished-checkpoint-damaged": Fault(
        "a finished trial's only checkpoint is corrupted later",
        "detected when it is used, or by `--verify`, which sets it aside and runs the trial again from its start; "
        "its rows are still read until then. A segment of a population continues the nearest ancestor that is whole",
    ),
    "shared-trial-damaged": Fault(
        "a shared trial is damaged after a process has read it",
        "seen with the file's next change of size, time or inode, and computed again; damage without one is "
        "harmless, since the process keeps the whole content",
    ),
    "damaged-file": Fault(
        "any file or folder of a storage is damaged: bits, halves, copies, swapped files, links, pipes, folders "
        "(some hundred cases by chance; `python -m tests.faults.fuzz SEED` repeats one)",
        "the results stay the same, or the file is repaired, which is said, or the run is refused in a line that names "
        "it; readers say what they leave out",
    ),
    "storage-moved": Fault(
        "the storage is moved",
        "the same command with the new `--storage` resumes",
    ),
    "clocks-jump": Fault(
        "clocks jump or differ",
        "nothing: times are only compared within a process, with its monotonic clock. (S3 itself refuses clocks that "
        "are off by 15 minutes)",
    ),
    "trial-fails": Fault(
        "a trial raises, or its loss is NaN",
        "*failed* with type, message and traceback; retried `retries` times; `--retry-failed` resets it",
    ),
    "trial-hours": Fault(
        "a trial takes longer than `trial_hours`",
        "it commits and fails as `TimeLimit`, without another try; with a larger limit and `--retry-failed` it goes "
        "on from its last commit",
    ),
    "retry-failed-population": Fault(
        "`--retry-failed`, or more `retries`, within a generation of a population",
        "failed members that the generation has been decided without stay failed, which is said in a line",
    ),
    "out-of-memory": Fault(
        "out of memory while sharing a device (raised by the test, on CPU; the test on a card has not run yet)",
        "retried alone on the whole card (or machine) before it counts as a failure; the memory is free for the next "
        "trial of the process",
    ),
    "device-dead": Fault(
        "a CUDA error after which every call of the process fails (illegal address, device-side assert, lost card)",
        "the trial's attempt ends as *failed* (`DeadDevice`) and spends no retry, its process ends, and the trial is "
        "tried on another machine: [below](#when-a-device-dies)",
    ),
    "machine-sick": Fault(
        "a machine whose card is sick",
        "after three such errors in a row it gets no more trials, which is said once",
    ),
    "device-kind": Fault(
        "a trial goes on on another kind of device, where `precision: auto` is another precision (simulated on a CPU)",
        "its checkpoint goes on, its row names both precisions, the report says that the sweep mixes them; shared "
        "trials of both stay apart",
    ),
    "other-code": Fault(
        "another version of the code",
        "other library versions, another commit: said, and recorded in `sweep.yaml`; another schema: refused, naming "
        "both; another space, default or revision: refused with the difference",
    ),
    "many-trials": Fault(
        "a sweep of very many trials fills the driver's memory",
        "a trial that is over takes 5 KiB of the driver and leaves Tune's lists; a resume holds one record at a time",
    ),
    "pod-ends": Fault(
        "Kubernetes ends a pod (preemption, an idle machine, `suspend`)",
        "its driver, or else its trials, get SIGTERM before Ray ends, and have 75 s to commit; KubeRay gives the "
        "command again ([kubernetes.md](kubernetes.md))",
    ),
    "job-time": Fault(
        "the time limit of a SLURM job is near, or it is preempted",
        "trials commit, and the job is queued again, which resumes the sweep ([slurm.md](slurm.md))",
    ),
    "job-cancelled": Fault(
        "`scancel` of a SLURM job",
        "SIGTERM reaches the driver alone; trials commit and end, exit code 130, and nothing is queued",
    ),
    "job-outage": Fault(
        "a SLURM job whose storage fails, whose driver is killed, or whose Ray does not start",
        "the job is queued again, ten times at most",
    ),
    "job-node": Fault(
        "a SLURM job loses the raylet of a node",
        "its trials go on on the other nodes",
    ),
    "no-access": Fault(
        "a machine cannot access the storage",
        "refused at start with the machine's name; the trials of a machine that joins later are taken back",
    ),
    "document-changed": Fault(
        "a bit of `state.json`, `config.json`, `sweep.yaml`, `warm.json`, `searches.json` or a lease changes, or the "
        "file is cut off",
        "noticed by the checksum that each of them carries (files of older versions have none). States and configs are "
        "set aside and written anew; `sweep.yaml` and `warm.json` are refused in one line; a living driver writes its "
        "lease anew",
    ),
    "config-of-another-name": Fault(
        "a field of a trial's config is changed in a file of an older version, which has no checksum",
        "refused before anything runs: every trial's config is derived anew and compared, with its name",
    ),
    "files-swapped": Fault(
        "files of two trials are swapped or copied",
        "state, config and checkpoint name their trial: set aside or left out, and written or computed anew",
    ),
    "trial-copied": Fault(
        "a trial's folder is copied or renamed",
        "left out of the sweep and of its tables, which is said in a line",
    ),
    "name-leads-outside": Fault(
        "a name in a stored file leads out of its folder",
        "refused: the file counts as damaged, and nothing is read or written elsewhere",
    ),
    "link-leads-outside": Fault(
        "a file or folder of a sweep is a link",
        "not followed: a trial's is set aside, the folder of all trials is refused in one line",
    ),
    "no-file": Fault(
        "a named pipe, a socket, a device, a folder or a huge file lies in a file's place",
        "noticed at once, without waiting or reading it; set aside where the driver repairs, otherwise left out",
    ),
    "checkpoint-of-another-version": Fault(
        "a checkpoint is whole, but cannot be loaded (another version of torch, an unknown class)",
        "set aside like a damaged one: the previous one is used, else the trial starts anew. Lack of memory is no "
        "damage",
    ),
    "rows-odd": Fault(
        "a row file has columns that no trial writes, or more rows than fit into memory",
        "set aside; rewritten from the checkpoint",
    ),
    "sweep-file-odd": Fault(
        "`sweep.yaml` has values nested thousands of levels deep, or aliases that stand for millions of values",
        "refused in one line",
    ),
    "packing-killed": Fault(
        "a kill while finished trials are packed or unpacked, at any call that changes the file system",
        "every trial can be read in one place or the other, also meanwhile; the next packing finishes or drops it",
    ),
    "packed-damaged": Fault(
        "a packed file is truncated, corrupted, deleted, or something else lies in its place",
        "said in a line that names it. The next run repairs an index from its copy, the manifest from the indexes and "
        "rows from checkpoints; where that is not possible, the trials of that part run again, and no others",
    ),
    "packed-sweep": Fault(
        "a sweep is packed on the way and at its end, then retried, extended, confirmed and continued from",
        "every command and call gives the results that it gives of the same sweep in folders",
    ),
    "packed-late-writer": Fault(
        "a frozen worker wakes after its trial was finished elsewhere and packed",
        "its commits are refused",
    ),
    "output-gone": Fault(
        "the reader of standard output goes away (`head -1` behind a pipe), or the terminal, with or without SIGHUP",
        "a run goes on to its end, and says so once on standard error; a report ends quietly with exit code 1",
    ),
    "output-full": Fault(
        "a full disk behind standard output",
        "a run goes on, and writes again once there is room; a report ends with one line and exit code 2",
    ),
    "output-closed": Fault(
        "standard streams that are closed from the start (`>&-`)",
        "nothing is printed, and no file of the sweep gets the stream's number; the exit code is the same",
    ),
    "terminal-encoding": Fault(
        "a terminal that has ASCII or Latin-1 only",
        "frames, spinners and signs become what looks alike in ASCII, other characters escapes",
    ),
    "no-account": Fault(
        "no home, no entry in passwd (`docker run --user 12345`), or a home that cannot be written",
        "the run is the same; caches are left out, and Ray's token lies in the environment of its processes only",
    ),
    "odd-path": Fault(
        "a path that is none: `~nosuchuser/x`, `$UNSET/x`, empty, control characters, too long, another scheme, a "
        "storage in a file's place",
        "refused with one line that names the option, exit code 2; nothing is made",
    ),
    "read-only-storage": Fault(
        "a storage that is mounted read-only",
        "`--list`, `--show`, `--compare`, `--serve` and `--dashboard` show it; `--report`, `--cancel` and runs are "
        "refused with one line",
    ),
    "token-readable": Fault(
        "a file of Ray's token that others may read",
        "a new one has mode 600 from its first moment; one that is there is narrowed, and a line says so",
    ),
    "old-ray": Fault(
        "a Ray older than 2.59, which asks for no token by default",
        "refused with one line before anything starts",
    ),
    "foreign-page": Fault(
        "another site's page sends requests to a page that this machine serves (DNS rebinding, cross-site requests)",
        "refused: by `--serve` and by `--dashboard`",
    ),
}
