"""The composer's decisions: pure functions over values.

catalogue.py says what templates and policies are made of; steps.py which notice an event calls for; remedies.py what is
offered; people.py how a customer and an order are named; segments.py counts an SMS; checks.py looks for broken musts;
write.py puts a notice together.
"""
