#!/bin/sh
# Vulkan on lavapipe, which is fast enough to learn MNIST, and under the validation layer.
. tests/tap.sh
. tests/devices.sh
plan 8

check parity_lavapipe lavapipe parity lenet
check sanity_mlp_lavapipe lavapipe sanity mlp --data digits
check sanity_lenet_lavapipe lavapipe sanity lenet --data digits

# The layer writes its messages to a file of its own; that it runs at all, the loader tells.
layer=/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
cat >"$folder/vk_layer_settings.txt" <<END
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = $folder/messages
END

# What the layer says of a command, and whether it was there to say anything.
validated() { # COMMAND...
    rm -f "$folder/messages"
    VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH=$folder VK_LOADER_DEBUG=layer \
        on lavapipe "$@" --device vulkan --quiet >"$folder/validation.log" 2>&1 ||
        echo "bantam $* ends with status $?: $(tail -n 1 "$folder/validation.log")"
    grep -q 'Insert instance layer "VK_LAYER_KHRONOS_validation' "$folder/validation.log" ||
        echo "the layer was not loaded"
    [ ! -e "$folder/messages" ] || grep -m 3 . "$folder/messages"
}

why=$(absent lavapipe)
if [ -n "$why" ]; then
    skip validation_is_silent "$why"
elif [ ! -e "$layer" ]; then
    skip validation_is_silent "no validation layer here (Debian: vulkan-validationlayers)"
else
    verdict validation_is_silent "$(validated sanity lenet --data digits
        validated train mlp digits --limit 500 --profile --out "$folder/profiled")"
fi

gate mlp_learns_digits lavapipe 50 2 mlp digits --limit 2000 --epochs 2
gate lenet_learns_digits lavapipe 45 3 lenet digits --limit 1000 --epochs 2
gate mlp_learns_mnist lavapipe 94 0.7 mlp mnist --epochs 1
gate lenet_learns_mnist lavapipe 93 0.7 lenet mnist --epochs 1 --limit 12000
