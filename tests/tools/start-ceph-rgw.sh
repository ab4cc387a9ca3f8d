#!/bin/bash
# A single-node Ceph object store (mon, bluestore-on-file OSD, radosgw) for tests: loopback only, no systemd.
#
#   start-ceph-rgw.sh DIR S3_PORT MON_PORT [TLS_PORT]
#                                             starts one in the new directory DIR, ready to answer; with TLS_PORT also
#                                             behind a certificate for 127.0.0.1 that it signs itself, DIR/tls.pem
#   start-ceph-rgw.sh --stop DIR              stops it and removes DIR
#
# Needs (Debian 12): apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd curl; and root.
# Any region, path style; keys cephkey / cephsecretcephsecret. About 25 s to start, 450 MB of memory.
set -euo pipefail

if [ "$1" = --stop ]; then
	D=$2
	for pid in "$D"/run/*.pid; do
		[ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
	done
	sleep 2
	for pid in "$D"/run/*.pid; do
		[ -s "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null || true
	done
	rm -rf "$D"
	exit 0
fi

D=$1 PORT=$2 MON_PORT=$3 TLS_PORT=${4:-}
export CEPH_CONF=$D/ceph.conf
ID=a7f64266-0894-4f1e-a635-d0aeaca0e993
mkdir -p "$D"/{mon.a,osd.0,run,log,crash}
TLS=
if [ -n "$TLS_PORT" ]; then
	# No authority of its own (CA:FALSE): rustls takes no authority's certificate for a server's.
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
		-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
		-keyout "$D/tls.key" -out "$D/tls.pem" 2>/dev/null
	TLS="ssl_endpoint=127.0.0.1:$TLS_PORT ssl_certificate=$D/tls.pem ssl_private_key=$D/tls.key"
fi
cat >"$D/ceph.conf" <<E
[global]
fsid = $ID
mon_initial_members = a
mon_host = v1:127.0.0.1:$MON_PORT
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_msgr2 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
osd_class_update_on_start = false
osd_crush_update_on_start = false
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = 21474836480
osd_memory_target = 1073741824
mon_data = $D/mon.\$id
osd_data = $D/osd.\$id
run_dir = $D/run
admin_socket = $D/run/\$name.asok
pid_file = $D/run/\$name.pid
log_file = $D/log/\$name.log
crash_dir = $D/crash
mon_cluster_log_file = $D/log/cluster.log
mon_data_avail_warn = 1
mon_data_avail_crit = 0
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:$PORT $TLS
rgw_data = $D/rgw
rgw_dns_name = s3.localhost
rgw_crypt_require_ssl = false
E
ceph-authtool --create-keyring "$D/mon.keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
monmaptool --create --addv a "[v1:127.0.0.1:$MON_PORT]" --fsid $ID "$D/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$D/monmap" --keyring "$D/mon.keyring"
ceph-mon -i a
sleep 2
OSD=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$OSD" >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$OSD"
ceph osd crush add-bucket h host
ceph osd crush move h root=default
ceph osd crush add osd.0 1.0 host=h
ceph-osd -i 0
sleep 3
radosgw -n client.rgw.a
radosgw-admin user create --uid=test --display-name=test \
	--access-key=cephkey --secret-key=cephsecretcephsecret >/dev/null
for _ in $(seq 60); do
	curl -s -o "$D/ready" "http://127.0.0.1:$PORT/" && exit 0
	sleep 1
done
echo "radosgw did not answer on port $PORT" >&2
exit 1
