// Finding an embedded file; see asset.h.
#include "asset.h"

#include <assert.h>
#include <string.h>

const char *asset_text(const char *name) {
    const asset *a = assets;
    while (a->name && strcmp(a->name, name)) a++;
    assert(a->name);
    return (const char *)a->bytes;
}
