// See status.h.
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

bt_status bt_fail(bt_error *err, bt_status status, const char *format, ...) {
    if (err->status != BT_OK) return err->status;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    // Names from files may be part of the sentence: no control bytes reach a terminal.
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    err->status = status;
    return status;
}

bt_status bt_fail_memory(bt_error *err, const char *what, size_t bytes) {
    return bt_fail(err, BT_ERROR_MEMORY,
                   "out of memory: %s needs %zu bytes; try a smaller batch or model", what, bytes);
}

void bt_error_clear(bt_error *err) {
    err->status = BT_OK;
    err->text[0] = 0;
}

const char *bt_status_name(bt_status status) {
    switch (status) {
    case BT_OK: return "ok";
    case BT_ERROR_INTERNAL: return "internal error";
    case BT_ERROR_USAGE: return "usage error";
    case BT_ERROR_DATA: return "bad data or model file";
    case BT_ERROR_DEVICE: return "device absent or lost";
    case BT_ERROR_NUMERIC: return "numeric failure";
    case BT_ERROR_MEMORY: return "out of memory or disk";
    case BT_STOPPED: return "stopped on request";
    }
    return "unknown status";
}
