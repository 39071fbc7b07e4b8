// The files of web/ (style sheets, scripts), which the build puts into the program.
#ifndef CLI_ASSET_H
#define CLI_ASSET_H

#include <stddef.h>

typedef struct asset {
    const char *name;                 // "page.css"
    const unsigned char *bytes, *end; // a 0 follows
} asset;

extern const asset assets[]; // the last has no name

// The text of a file of web/, which must exist.
const char *asset_text(const char *name);

#endif
