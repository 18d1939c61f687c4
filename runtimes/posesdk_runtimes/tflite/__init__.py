"""TFLite graphs on ai-edge-litert or tflite-runtime."""
