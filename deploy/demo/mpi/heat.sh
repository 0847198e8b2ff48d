#!/bin/sh
# Run an MPI program over all nodes that the host file names: compile it here, put it where ssh leads at each of them,
# start it. Only the first line of options to mpirun is special: Open MPI uses every network that it finds unless it is
# told one, and on the network over all sites each node reaches each.
set -eu

mpicc -O2 -o heat heat.c -lm
grep -v '^#' "$VCPEER_HOSTFILE" | while read -r address _; do
	ssh -n "$address" mkdir -p "job-$VCPEER_JOB_ID"
	scp -q heat "$address:job-$VCPEER_JOB_ID/"
done
exec mpirun --mca btl tcp,self --mca btl_tcp_if_include vcpeer0 --mca oob_tcp_if_include vcpeer0 \
	--mca mpi_yield_when_idle 1 --hostfile "$VCPEER_HOSTFILE" --wdir "$HOME/job-$VCPEER_JOB_ID" ./heat
