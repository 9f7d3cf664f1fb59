# A host made of namespaces, from inside: its own /root, /tmp, /run, /dev/shm and sshd. Run as the first process of
#   unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc sh namespace_host.sh FOLDER NAME ADDRESS
# FOLDER/keep lists paths that stay as they are; FOLDER/shared becomes /mnt, FOLDER/{hosts,authorized_keys} are copied.
set -eu
folder=$1 name=$2 address=$3
mount --make-rprivate /
hostname "$name"
mount -t tmpfs none /run
mkdir /run/keep /run/sshd
cp -r "$folder" /run/given
mkdir /run/shared && mount --bind "$folder/shared" /run/shared

number=0
while read -r path; do
    number=$((number + 1))
    mkdir "/run/keep/$number" && mount --bind "$path" "/run/keep/$number"
done < /run/given/keep
for path in /root /tmp /dev/shm; do mount -t tmpfs none "$path"; done
chmod 1777 /tmp /dev/shm
number=0
while read -r path; do
    number=$((number + 1))
    mkdir -p "$path" && mount --bind "/run/keep/$number" "$path"
done < /run/given/keep
mount --bind /run/shared /mnt
mount --bind /run/given/hosts /etc/hosts

# What the cluster's setup commands would install, where there is a network.
mkdir -p /root/venv
for part in bin lib pyvenv.cfg; do ln -s "$(cat /run/given/prefix)/$part" /root/venv/; done
cp /run/given/constraints.txt /root/venv/
: > /root/.bashrc

ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip address add "$address/24" dev eth0
ip link set eth0 up
install -D -m 0600 /run/given/authorized_keys /root/.ssh/authorized_keys
ssh-keygen -q -t ed25519 -N '' -f /run/host_key
exec /usr/sbin/sshd -D -e -f /dev/null -o HostKey=/run/host_key -o PidFile=none -o UsePAM=no -o StrictModes=no \
    -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o MaxStartups=100
