#!/bin/sh
# Devices that need no GPU, but for lavapipe (test_lavapipe): the simulated one, the checking one, Vulkan
# on SwiftShader, Metal on the simulated Metal. They are slow, so what they are asked is small; still,
# a batch is more than one group of threads.
. tests/tap.sh
. tests/devices.sh
plan 13

# (All kernels on sim: test_parity.)
check sanity_mlp_sim sim sanity mlp --data digits --batch 8
check sanity_lenet_sim sim sanity lenet --data digits --batch 8
check parity_check check parity lenet
check sanity_mlp_check check sanity mlp --data digits
check sanity_lenet_check check sanity lenet --data digits
for device in swiftshader metal; do
    check parity_$device $device parity lenet --batch 8
    check sanity_mlp_$device $device sanity mlp --data digits --batch 8
    check sanity_lenet_$device $device sanity lenet --data digits --batch 8
done
gate mlp_learns_on_metal metal 50 2 mlp digits --limit 2000 --epochs 2
gate lenet_learns_on_metal metal 45 3 lenet digits --limit 1000 --epochs 2
