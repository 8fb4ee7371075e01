# For the volume provisioner's helper pods: a shell, mkdir and rm.
FROM scratch
ADD busybox.tar /
ENV PATH=/bin
CMD ["/bin/sh"]
