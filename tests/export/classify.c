/* Runs an exported network: images (bytes) from standard input, one class a line to standard
   output. Ends with an error where the probabilities are none, or do not belong to the class. */
#include "model.h"

#include <stdio.h>

int main(void) {
    static unsigned char image[MODEL_CHANNELS * MODEL_HEIGHT * MODEL_WIDTH];
    float p[MODEL_CLASSES];
    int count = 0;
    while (fread(image, sizeof image, 1, stdin) == 1) {
        float sum = 0;
        int i, class = model_classify(image, p);
        for (i = 0; i < MODEL_CLASSES; i++) {
            sum += p[i];
            if (p[i] > p[class]) return 1;
        }
        if (!(sum > 0.999f && sum < 1.001f) ||
            (count++ < 100 && model_classify(image, NULL) != class))
            return 2;
        printf("%d\n", class);
    }
    return 0;
}
