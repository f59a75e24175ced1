"""What people see: a live view, plain lines, figures. Colour and signs only repeat what words say."""
