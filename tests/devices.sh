# What the scripts that try whole devices share: all kernels against f64, whether a network can learn,
# and how well it learns compared with the CPU device. Sourced by test_*.sh after tap.sh.
#
# Vulkan has two drivers that run on the CPU: Mesa's lavapipe, and SwiftShader (the weakest there is; it
# comes with Chromium). Metal is played by tests/sim/metal.
folder=$BUILD/tests/$(basename "$0" .sh)
rm -rf "$folder"
mkdir -p "$folder"
lavapipe=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -n 1)
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

# on DEVICE COMMAND...: `bantam COMMAND...` where Vulkan sees exactly that driver, or none.
on() {
    driver=/nonexistent
    case $1 in lavapipe) driver=$lavapipe ;; swiftshader) driver=$swiftshader ;; esac
    metal=${BANTAM_METAL:-}
    # (On a Mac there is no simulated one, but a real one.)
    if [ "$1" = metal ] && [ -e "$BUILD/tests/metal_sim.so" ]; then metal=$BUILD/tests/metal_sim.so; fi
    shift
    env BANTAM_METAL="$metal" VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" XDG_RUNTIME_DIR="$folder" \
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

# Accuracy in percent after training MODEL on DEVICE.
accuracy() { # DEVICE MODEL OPTION...
    device=$1
    shift
    on "$device" train "$@" --device "$(kind "$device")" --json --quiet --out "$folder/run" 2>>"$folder/learn.log" |
        awk 'match($0, /"test_acc": [0-9.e-]+/) { printf "%.2f\n", 100 * substr($0, RSTART + 12, RLENGTH - 12) }'
    rm -rf "$folder/run"
}

# At least PERCENT right, and no further than MARGIN from what the CPU learns with the same seed.
gate() { # NAME DEVICE PERCENT MARGIN MODEL DATA OPTION...
    name=$1 device=$2 percent=$3 margin=$4
    shift 4
    why=$(absent "$device")
    if [ -n "$why" ]; then
        skip "$name" "$why"
    elif [ "$2" = mnist ] && [ ! -d "${BANTAM_DATA:-/nowhere}/mnist" ]; then
        skip "$name" "no MNIST here; set BANTAM_DATA to the folder that holds mnist/"
    else
        rm -f "$folder/learn.log"
        reached=$(accuracy "$device" "$@") cpu=$(accuracy cpu "$@")
        verdict "$name" "$(awk -v a="$reached" -v cpu="$cpu" -v percent="$percent" -v margin="$margin" \
            -v said="$(tail -n 1 "$folder/learn.log")" 'BEGIN {
            if (a == "" || cpu == "") print "training failed: " said
            else if (a < percent) printf "%s %% of the test images are right, wanted %s %%\n", a, percent
            else if (a - cpu > margin || cpu - a > margin) printf "%s %%, and %s %% on the CPU\n", a, cpu }')"
    fi
}
