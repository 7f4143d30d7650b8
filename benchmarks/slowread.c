/*
 * Licensed under the Apache License, Version 2.0 (the "License"); you may
 * not use this file except in compliance with the License. You may obtain
 * a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 * WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 * License for the specific language governing permissions and limitations
 * under the License.
 */

/*
 * Loaded before the C library: reads of one file, the one that has the inode
 * named by SLOW_INODE, take SLOW_SECONDS each. All others are as they were.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void wait_if_slow(int fd)
{
    const char *inode = getenv("SLOW_INODE");
    const char *seconds = getenv("SLOW_SECONDS");
    struct stat st;

    if (inode && seconds && fstat(fd, &st) == 0 &&
        st.st_ino == strtoull(inode, NULL, 10)) {
        double t = strtod(seconds, NULL);
        struct timespec delay = {t, (t - (time_t)t) * 1e9};
        nanosleep(&delay, NULL);
    }
}

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");

    wait_if_slow(fd);
    return next(fd, buffer, size);
}
