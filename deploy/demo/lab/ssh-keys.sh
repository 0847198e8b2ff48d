#!/bin/sh
# For sshd (AuthorizedKeysCommand): the keys that may log in as a user, from the cluster's records.
vcpeer account show "$1" --json | jq -r 'select(.disabled | not).sshKeys[]'
