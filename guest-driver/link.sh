#!/bin/sh
# The linker that rustc calls for the driver: lld, run over copies of its
# inputs in one folder and by relative names.
#
# lld writes its command line, its inputs' names and its current folder into
# the PDB. Called directly, it would put this machine's paths there, and the
# compiler's random temporary names, so that no two builds were the same.
#
# DMASAN_LLD names lld, DMASAN_LLD_FLAVOR is what it needs to act as
# lld-link ("-flavor link" or nothing).
set -eu

out=
for argument in "$@"; do
    case $argument in
    /OUT:*) out=${argument#/OUT:} ;;
    esac
done
stage=$(dirname "$out")/link
rm -rf "$stage"
mkdir -p "$stage/bin"
ln -s "$DMASAN_LLD" "$stage/bin/lld-link"

count=$#
number=0
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    count=$((count - 1))
    if [ -f "$argument" ]; then
        # The order stays, the random parts of the names go.
        number=$((number + 1))
        cp "$argument" "$stage/$number.${argument##*.}"
        set -- "$@" "$number.${argument##*.}"
        continue
    fi
    case $argument in
    # What is said again below, or is for a link that uses Windows' libraries.
    /OUT:* | /PDB:* | /PDBALTPATH:* | /NATVIS:* | /LIBPATH:* | /IMPLIB:*) ;;
    # How rustc expects to call a multi-purpose lld.
    -flavor | link) ;;
    *) set -- "$@" "$argument" ;;
    esac
done

cd "$stage"
# shellcheck disable=SC2086 # the flavor is two words or none
PATH=bin lld-link ${DMASAN_LLD_FLAVOR:-} "$@" /OUT:dmasan-gpu.sys \
    /PDB:dmasan-gpu.pdb /PDBALTPATH:dmasan-gpu.pdb /PDBSOURCEPATH:.
cp dmasan-gpu.sys "$out"
cp dmasan-gpu.pdb "${out%.*}.pdb"
