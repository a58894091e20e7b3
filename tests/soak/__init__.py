"""Random stories in random weather for as long as asked, and after each a look from outside at what must hold."""
