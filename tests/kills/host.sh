# A machine of the rehearsal that does nothing: the seam of provisioner.rehearsal.host, and as little processor as can be.
read -r _
echo '{"port":1}'
exec cat >/dev/null
