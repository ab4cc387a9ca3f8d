#!/bin/bash
# stop-when-idle.sh LEASE COMMAND…: runs COMMAND once nobody has held a shared lock on LEASE for 10 seconds.
# Tests that share one slow server hold such a lock while they use it; whatever kills them, it is stopped.
lease=$1
shift
idle=0
while true; do
	sleep 1
	if flock -n -x "$lease" true; then idle=$((idle + 1)); else idle=0; fi
	[ $idle -lt 10 ] && continue
	# Under the lock that starting takes, and asked once more: nobody begins to use it while it is stopped.
	exec 9>"$lease.start"
	flock -x 9
	if flock -n -x "$lease" true; then
		rm -f "$lease.endpoint"
		"$@" 9>&-
		exit
	fi
	exec 9>&-
	idle=0
done
