"""ONTAP's asynchronous jobs: queued, running, then success or failure, and forgotten some minutes later."""

import threading
import time
import uuid
from datetime import datetime, timezone


class OntapError(Exception):
    """A failure with ONTAP's code; as an HTTP error when it shows up before there is a job."""

    def __init__(self, code, message, status=400, target=None):
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.status = status
        self.target = target

    def body(self):
        error = {"message": self.message, "code": self.code}
        if self.target:
            error["target"] = self.target
        return {"error": error}


def stamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


class Job:
    """One job; `finished` is set when it has ended."""

    def __init__(self, description, svm):
        self.uuid = str(uuid.uuid4())
        self.description = description
        self.svm = svm
        self.state = "queued"
        self.error = None
        self.started = time.time()
        self.ended = None
        self.finished = threading.Event()

    def record(self, with_error_object):
        record = {
            "uuid": self.uuid,
            "description": self.description,
            "state": self.state,
            "message": self.error.message if self.error else "success" if self.state == "success" else "",
            "code": int(self.error.code) if self.error else 0,
            "start_time": stamp(self.started),
            "svm": self.svm,
            "_links": {"self": {"href": f"/api/cluster/jobs/{self.uuid}"}},
        }
        if self.ended:
            record["end_time"] = stamp(self.ended)
        if self.error and with_error_object:
            record["error"] = self.error.body()["error"]
        return record


class Jobs:
    """The jobs of a cluster. Faults of kind `job` are looked up by the job's description when its work is to begin:
    `how` is `fail` (nothing done), `fail-after` (done, reported as failed), `hang` (never ends), `slow` (ends after
    `seconds`) or `vanish` (done, and the job is forgotten at once)."""

    def __init__(self, array):
        self.array = array
        self.jobs = {}

    def start(self, description, svm, work):
        job = Job(description, svm)
        self.jobs[job.uuid] = job
        threading.Thread(target=self.run, args=(job, work), daemon=True).start()
        return job

    def run(self, job, work):
        settings = self.array.settings
        time.sleep(settings["queued_seconds"])
        job.state = "running"
        time.sleep(settings["job_seconds"])
        fault = self.array.faults.first(job.description, "job") or {"how": ""}
        how = fault["how"]
        if how == "hang":
            job.state = fault.get("state", "running")
            return
        if how == "slow":
            time.sleep(fault["seconds"])
        try:
            if how != "fail":
                with self.array.lock:
                    work()
            if how in ("fail", "fail-after"):
                raise OntapError(fault.get("code", 262145), fault.get("message", "internal error"))
            job.state = "success"
        except OntapError as error:
            job.error = error
            job.state = fault.get("state", "failure")
        job.ended = time.time()
        if how == "vanish":
            self.jobs.pop(job.uuid)
        job.finished.set()

    def evict(self):
        """Forgets jobs that ended long ago."""
        oldest = time.time() - self.array.settings["job_life"]
        for job in list(self.jobs.values()):
            if job.ended and job.ended < oldest:
                self.jobs.pop(job.uuid, None)

    def reply_to(self, job, return_timeout):
        """(status, body) of the call that started the job."""
        reference = {"uuid": job.uuid, "_links": {"self": {"href": f"/api/cluster/jobs/{job.uuid}"}}}
        if return_timeout and job.finished.wait(min(return_timeout, 120)):
            if job.error:
                raise job.error
            return (201 if job.description.startswith("POST") else 200), {"job": reference}
        return 202, {"job": reference}
