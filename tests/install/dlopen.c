/* dlopen.c - Loads the shared library at run time, uses it and lets it go.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <loam/loam.h>
#include <stdio.h>

/* POSIX's way from an object pointer to a function pointer. */
#define FIND(fn, library, name) (*(void **)&(fn) = dlsym((library), (name)))

int main(int argc, char **argv)
{
    int (*make_disk)(loam_vfs **) = NULL;
    void (*free_disk)(loam_vfs *) = NULL;
    int (*open_db)(const char *, const loam_options *, loam_db **) = NULL;
    int (*close_db)(loam_db *) = NULL;
    for (int round = 0; round < 3; round++) {
        loam_vfs *vfs = NULL;
        loam_db *db = NULL;
        loam_options options = {0};
        void *library = dlopen(argc > 1 ? argv[1] : "libloam.so.0", RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        FIND(make_disk, library, "loam_vfs_memory");
        FIND(free_disk, library, "loam_vfs_free");
        FIND(open_db, library, "loam_open");
        FIND(close_db, library, "loam_close");
        if (!make_disk || !free_disk || !open_db || !close_db || make_disk(&vfs) != 0) {
            return 1;
        }
        options.struct_size = sizeof options;
        options.vfs = vfs;
        if (open_db("/db", &options, &db) != 0 || close_db(db) != 0) {
            return 1;
        }
        free_disk(vfs);
        dlclose(library);
    }
    return 0;
}
