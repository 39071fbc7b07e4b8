#!/bin/sh
# Every device that needs no GPU: the simulated one, the checking one, and Vulkan on two drivers that
# run on the CPU, Mesa's lavapipe and SwiftShader (the weakest there is; it comes with Chromium). On each:
# all kernels against f64, and whether a network can learn; on lavapipe, which is fast enough, also
# how well it learns, compared with the CPU device. Vulkan runs under its validation layer.
. tests/tap.sh
plan 16

folder=$BUILD/tests/devices
rm -rf "$folder"
mkdir -p "$folder"
lavapipe=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -n 1)
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

# The layer writes its messages to a file of its own; that it runs at all, the loader tells.
layer=/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
cat >"$folder/vk_layer_settings.txt" <<END
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = $folder/messages
END

# on DEVICE COMMAND...: `bantam COMMAND...` where Vulkan sees exactly that driver, or none.
on() {
    driver=/nonexistent
    case $1 in lavapipe) driver=$lavapipe ;; swiftshader) driver=$swiftshader ;; esac
    shift
    env VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" XDG_RUNTIME_DIR="$folder" \
        XDG_CACHE_HOME="$folder/cache" "$BUILD/bantam" "$@" </dev/null
}
kind() { case $1 in lavapipe | swiftshader) echo vulkan ;; *) echo "$1" ;; esac; }

# Why a device cannot be tested; nothing when it can.
absent() { # DEVICE
    if [ -n "${BT_TEST_QUICK:-}" ]; then
        echo "too long for an instrumented build"
        return
    fi
    entry=$(on "$1" devices --json | grep -o "{\"name\": \"$(kind "$1")[:\"][^}]*}" | head -n 1)
    case $entry in
    *'"available": true'*) ;;
    '') echo "this build has no $(kind "$1") device" ;;
    *) echo "$entry" | sed 's/.*"reason": "\([^"]*\)".*/\1/' ;;
    esac
}

# The failing rows of a report of `parity` or `sanity`; nothing when all is well.
report() { # NAME DEVICE COMMAND...
    name=$1 device=$2
    shift 2
    on "$device" "$@" --device "$(kind "$device")" --json --quiet >"$folder/$name.json" 2>"$folder/$name.log" ||
        echo "bantam $* --device $(kind "$device"): ends with status $?" "$(tail -n 1 "$folder/$name.log")"
    grep -q '"failed": 0[,}]' "$folder/$name.json" || echo "does not report 0 failed"
    grep -oE '\{[^{}]*"ok": false[^{}]*\}' "$folder/$name.json" | head -n 3
}

check() { # NAME DEVICE COMMAND...
    why=$(absent "$2")
    if [ -n "$why" ]; then skip "$1" "$why"; else verdict "$1" "$(report "$@")"; fi
}

for device in sim check lavapipe swiftshader; do
    # What a slow device is asked must still be more than one group of threads. (All kernels on sim:
    # test_parity.)
    case $device in sim | swiftshader) small='--batch 8' ;; *) small= ;; esac
    # shellcheck disable=SC2086
    {
        [ $device = sim ] || check "parity_$device" $device parity lenet $small
        check "sanity_mlp_$device" $device sanity mlp --data digits $small
        check "sanity_lenet_$device" $device sanity lenet --data digits $small
    }
done

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

# Accuracy in percent after training MODEL on DEVICE.
accuracy() { # DEVICE MODEL OPTION...
    device=$1
    shift
    on "$device" train "$@" --device "$(kind "$device")" --json --quiet --out "$folder/run" 2>>"$folder/learn.log" |
        awk 'match($0, /"test_acc": [0-9.e-]+/) { printf "%.2f\n", 100 * substr($0, RSTART + 12, RLENGTH - 12) }'
    rm -rf "$folder/run"
}

# At least PERCENT right, and no further than MARGIN from what the CPU learns with the same seed.
gate() { # NAME PERCENT MARGIN MODEL DATA OPTION...
    name=$1 percent=$2 margin=$3
    shift 3
    why=$(absent lavapipe)
    if [ -n "$why" ]; then
        skip "$name" "$why"
    elif [ "$2" = mnist ] && [ ! -d "${BANTAM_DATA:-/nowhere}/mnist" ]; then
        skip "$name" "no MNIST here; set BANTAM_DATA to the folder that holds mnist/"
    else
        rm -f "$folder/learn.log"
        reached=$(accuracy lavapipe "$@") cpu=$(accuracy cpu "$@")
        verdict "$name" "$(awk -v a="$reached" -v cpu="$cpu" -v percent="$percent" -v margin="$margin" \
            -v said="$(tail -n 1 "$folder/learn.log")" 'BEGIN {
            if (a == "" || cpu == "") print "training failed: " said
            else if (a < percent) printf "%s %% of the test images are right, wanted %s %%\n", a, percent
            else if (a - cpu > margin || cpu - a > margin) printf "%s %%, and %s %% on the CPU\n", a, cpu }')"
    fi
}

gate mlp_learns_digits 50 2 mlp digits --limit 2000 --epochs 2
gate lenet_learns_digits 45 3 lenet digits --limit 1000 --epochs 2
gate mlp_learns_mnist 94 0.7 mlp mnist --epochs 1
gate lenet_learns_mnist 93 0.7 lenet mnist --epochs 1 --limit 12000
