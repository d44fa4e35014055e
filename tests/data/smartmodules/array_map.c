/* Splits every value at its commas into a record each. */
#include "smartmodule.h"

EXPORT("array_map") i32 array_map(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record)) {
        struct record part = record;
        const u8 *end = record.value.at + record.value.length;
        for (const u8 *at = record.value.at;; at++) {
            if (at != end && *at != ',')
                continue;
            part.value.length = (u32)(at - part.value.at);
            emit(&call, &part);
            if (at == end)
                break;
            part.value.at = at + 1;
        }
    }
    return finish(&call);
}
