/*
 * A file for the compiler in the guest to compile, and no part of the guest
 * program: a merge sort and a balanced tree over the lines of standard input.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct node {
    struct node *left, *right;
    char *line;
    unsigned level, count;
};

static struct node *skew(struct node *tree)
{
    struct node *left;

    if (!tree || !tree->left || tree->left->level != tree->level)
        return tree;
    left = tree->left;
    tree->left = left->right;
    left->right = tree;
    return left;
}

static struct node *split(struct node *tree)
{
    struct node *right;

    if (!tree || !tree->right || !tree->right->right || tree->right->right->level != tree->level)
        return tree;
    right = tree->right;
    tree->right = right->left;
    right->left = tree;
    right->level++;
    return right;
}

static struct node *insert(struct node *tree, char *line)
{
    int order;

    if (!tree) {
        tree = calloc(1, sizeof(*tree));
        if (!tree)
            exit(1);
        tree->line = line;
        tree->level = tree->count = 1;
        return tree;
    }
    order = strcmp(line, tree->line);
    if (order < 0)
        tree->left = insert(tree->left, line);
    else if (order > 0)
        tree->right = insert(tree->right, line);
    else
        tree->count++;
    return split(skew(tree));
}

#define MERGE_SORT(name, type, less)                                                               \
    static void name(type *items, type *space, size_t count)                                       \
    {                                                                                              \
        size_t half = count / 2, i = 0, j = half, out = 0;                                         \
        if (count < 2)                                                                             \
            return;                                                                                \
        name(items, space, half);                                                                  \
        name(items + half, space, count - half);                                                   \
        while (i < half && j < count)                                                              \
            space[out++] = less(items[j], items[i]) ? items[j++] : items[i++];                     \
        while (i < half)                                                                           \
            space[out++] = items[i++];                                                             \
        while (j < count)                                                                          \
            space[out++] = items[j++];                                                             \
        memcpy(items, space, count * sizeof(*items));                                              \
    }

static int text_less(const char *a, const char *b)
{
    return strcasecmp(a, b) < 0;
}

static int length_less(const char *a, const char *b)
{
    size_t x = strlen(a), y = strlen(b);

    return x < y || (x == y && strcmp(a, b) < 0);
}

static int number_less(double a, double b)
{
    return isnan(b) ? !isnan(a) : a < b;
}

static int plain_less(long a, long b)
{
    return a < b;
}

MERGE_SORT(sort_text, char *, text_less)
MERGE_SORT(sort_length, char *, length_less)
MERGE_SORT(sort_numbers, double, number_less)
MERGE_SORT(sort_plain, long, plain_less)

static void print(const struct node *tree)
{
    if (!tree)
        return;
    print(tree->left);
    printf("%7u %s\n", tree->count, tree->line);
    print(tree->right);
}

int main(int count, char **words)
{
    size_t room = 1024, used = 0;
    char **lines = malloc(room * sizeof(*lines)), text[4096];
    struct node *tree = NULL;
    void *space;

    while (lines && fgets(text, sizeof(text), stdin)) {
        text[strcspn(text, "\n")] = 0;
        for (char *at = text; *at; at++)
            *at = (char)tolower((unsigned char)*at);
        if (used == room)
            lines = realloc(lines, (room *= 2) * sizeof(*lines));
        if (lines)
            lines[used++] = strdup(text);
    }
    space = calloc(used + 1, sizeof(double));
    if (!lines || !space)
        return 1;
    if (count > 1 && !strcmp(words[1], "-n")) {
        double *numbers = calloc(used + 1, sizeof(*numbers));
        long *plain = calloc(used + 1, sizeof(*plain));

        if (!numbers || !plain)
            return 1;
        for (size_t i = 0; i < used; i++) {
            numbers[i] = strtod(lines[i], NULL);
            plain[i] = strtol(lines[i], NULL, 0);
        }
        sort_numbers(numbers, space, used);
        sort_plain(plain, space, used);
        for (size_t i = 0; i < used; i++)
            printf("%.17g %ld\n", sqrt(fabs(numbers[i])), plain[i]);
        return 0;
    }
    for (size_t i = 0; i < used; i++)
        tree = insert(tree, lines[i]);
    print(tree);
    if (count > 1 && !strcmp(words[1], "-l"))
        sort_length(lines, space, used);
    else
        sort_text(lines, space, used);
    for (size_t i = 0; i < used; i++)
        puts(lines[i]);
    return 0;
}
