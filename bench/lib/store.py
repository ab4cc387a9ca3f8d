"""Object stores: one that is given, or a Ceph radosgw started for the occasion."""

import hashlib
import os
import shutil
import socket
import subprocess
import urllib.parse

from lib.measure import Failed

REGION = "us-east-1"


class Store:
    """`endpoint`: https, as pgBackRest speaks nothing else; `authority`: whom to trust for it."""

    def __init__(self, endpoint, key, secret, bucket, directory=None, authority=None):
        self.bucket, self.directory = bucket, directory
        self.endpoint, self.key, self.secret = endpoint, key, secret
        self.env = {
            "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": REGION,
            "PITR_REPOSITORY_ENDPOINT": endpoint,
        }
        if authority:
            self.env["PITR_REPOSITORY_CA_FILE"] = authority

    def pgbackrest(self):
        """The same store in the words of pgBackRest's configuration."""
        at = urllib.parse.urlsplit(self.endpoint)
        return [f"repo1-s3-endpoint={at.hostname}", f"repo1-storage-port={at.port or 443}",
                "repo1-storage-verify-tls=n", f"repo1-s3-bucket={self.bucket}", f"repo1-s3-region={REGION}",
                "repo1-s3-uri-style=path", f"repo1-s3-key={self.key}", f"repo1-s3-key-secret={self.secret}"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(tools):
    """A list with the store that there is, or an empty one. To be called as root for Ceph."""
    endpoint = os.environ.get("PITR_BENCH_S3_ENDPOINT")
    if endpoint:
        return [Store(endpoint, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"],
                      os.environ["PITR_BENCH_S3_BUCKET"])]
    if os.geteuid() != 0 or not all(map(shutil.which, ("radosgw", "ceph-mon", "ceph-osd", "curl", "openssl"))):
        return []
    directory, port, tls = f"/tmp/pitr-bench-ceph-{os.getpid()}", free_port(), free_port()
    script = os.path.join(tools, "start-ceph-rgw.sh")
    keys = ("cephkey", "cephsecretcephsecret")
    store = Store(f"https://127.0.0.1:{tls}", *keys, "bench", directory, f"{directory}/tls.pem")
    store.script = script
    try:
        done = subprocess.run([script, directory, str(port), str(free_port()), str(tls)], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
    except BaseException:
        # Ended by a signal: what was started by then would stay.
        stop([store])
        raise
    if done.returncode != 0:
        stop([store])
        raise Failed(f"Ceph did not start:\n{done.stderr[-2000:]}")
    # The digest of an empty body: this curl signs S3 requests only with it given.
    empty = "x-amz-content-sha256: " + hashlib.sha256(b"").hexdigest()
    made = subprocess.run(["curl", "-sf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", ":".join(keys), "-H", empty,
                           "-X", "PUT", f"http://127.0.0.1:{port}/{store.bucket}"], check=False)
    if made.returncode != 0:
        stop([store])
        raise Failed("Ceph refused to make a bucket")
    return [store]


def stop(stores):
    for store in stores:
        if store.directory:
            subprocess.run([store.script, "--stop", store.directory], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
