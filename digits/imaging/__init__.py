"""A picture's bytes become an image in MNIST's form, with NumPy and Pillow; no Flask and no TensorFlow here."""
