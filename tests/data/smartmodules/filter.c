/* Keeps the records whose value contains an "a". */
#include "smartmodule.h"

EXPORT("filter") i32 filter(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record))
        if (contains(record.value, TEXT("a")))
            emit(&call, &record);
    return finish(&call);
}
